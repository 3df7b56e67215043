"""Answers that a judge has graded, and how well a grader agrees with the judge."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..stats import ratio_seeds
from ..tasks.places import Form, Place, Text, checked, json_lines, opened, parsed


class GradedAnswer(Form):
    """A judge's verdict on one answer. Answers of one ``title`` are about one article, and are not independent."""

    title: Text
    question: Text
    gold: Text
    prediction: str
    correct: bool


@dataclass(frozen=True)
class Agreement:
    """How often two judges say the same (0..1), Cohen's kappa, and the agreement's 95 % interval over titles."""

    agreement: float
    kappa: float
    low: float
    high: float
    n: int
    titles: int

    def rounded(self) -> dict[str, Any]:
        """The figures by name, to four decimals."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def read_graded(path: Path) -> list[GradedAnswer]:
    """The graded answers of a JSONL file: one object per line with title, question, gold, prediction and correct.

    Raises:
        TaskFileError: the file can't be read, is empty, or a line is no such object; names file, line and field.
    """
    with opened(path) as stream:
        lines = json_lines(stream, Place(path))
        rows = [checked(GradedAnswer, parsed(line, place), place) for place, line in lines]
    return rows or Place(path).fail(
        "the file is empty",
        "write one object per line, with title, question, gold, prediction (texts) and correct (true or false)",
    )


def agreement(rows: Sequence[GradedAnswer], verdicts: Sequence[bool]) -> Agreement:
    """How well ``verdicts[i]`` agrees with the judge's on ``rows[i]``; raises ValueError without rows."""
    if not rows or len(rows) != len(verdicts):
        raise ValueError(f"{len(rows)} graded answers against {len(verdicts)} verdicts; give one verdict for each")
    same: dict[str, list[bool]] = defaultdict(list)
    for row, verdict in zip(rows, verdicts, strict=True):
        same[row.title].append(row.correct == verdict)
    rate = ratio_seeds([[sum(title) for title in same.values()]], [[len(title) for title in same.values()]])
    assert rate is not None  # every title has a row
    judge, grader = sum(row.correct for row in rows) / len(rows), sum(verdicts) / len(rows)
    chance = judge * grader + (1 - judge) * (1 - grader)
    agreed = sum(map(sum, same.values())) / len(rows)
    # Where both always say the same word there is nothing beyond chance to measure; by convention 1 if they agree.
    kappa = (agreed - chance) / (1 - chance) if chance < 1 else 1.0
    return Agreement(agreed, kappa, rate.low, rate.high, len(rows), len(same))


def title_hash(title: str) -> str:
    """64 bits of SHA-256 of a title, by which the shipped grader knows what it was calibrated on."""
    return hashlib.sha256(title.encode()).hexdigest()[:16]
