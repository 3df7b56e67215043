"""Answers that a judge has graded: reading them from a file, and how well a grader agrees with the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..stats import ratio_seeds
from ..tasks.places import Place, decoded, named, object_at, parsed, required_text, text_at

_FIELDS = "title, question, gold, prediction (texts) and correct (true or false)"


@dataclass(frozen=True)
class GradedAnswer:
    """A judge's verdict on one answer. Answers of one ``title`` are about one article, and are not independent."""

    title: str
    question: str
    gold: str
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
    """The graded answers of a JSONL file: an object a line with title, question, gold, prediction and correct.

    Raises:
        TaskFileError: the file can't be read, is empty, or a line is no such object; names file, line and field.
    """
    at = Place(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        at.fail(f"can't be opened ({error.strerror})", "check the path and its permissions")
    lines = enumerate(decoded(raw.removeprefix(b"\xef\xbb\xbf"), at).split("\n"), start=1)
    rows = [_graded(line, replace(at, line=number)) for number, line in lines if line.strip()]
    if not rows:
        at.fail("the file is empty", f"write one object a line, with {_FIELDS}")
    return rows


def _graded(line: str, at: Place) -> GradedAnswer:
    record = object_at(parsed(line, at), at)
    for name in ("prediction", "correct"):
        if name not in record:
            at.of(name).fail("the field is missing", f"a graded answer has {_FIELDS}")
    correct = record["correct"]
    if not isinstance(correct, bool):
        at.of("correct").fail(f"expected true or false, found {named(correct)}", "write the judge's verdict")
    return GradedAnswer(
        required_text(record, "title", at),
        required_text(record, "question", at),
        required_text(record, "gold", at),
        text_at(record["prediction"], at.of("prediction"), may_be_empty=True),
        correct,
    )


def agreement(rows: Sequence[GradedAnswer], verdicts: Sequence[bool]) -> Agreement:
    """How well ``verdicts[i]`` agrees with the judge's on ``rows[i]``; raises ValueError without rows."""
    if not rows or len(rows) != len(verdicts):
        raise ValueError(f"{len(rows)} graded answers against {len(verdicts)} verdicts; give one verdict for each")
    same: dict[str, list[bool]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        same.setdefault(row.title, []).append(row.correct == verdict)
    rate = ratio_seeds([[sum(title) for title in same.values()]], [[len(title) for title in same.values()]])
    assert rate is not None  # every title has a row
    judge, grader = (sum(said) / len(rows) for said in ([row.correct for row in rows], verdicts))
    chance = judge * grader + (1 - judge) * (1 - grader)
    agreed = sum(map(sum, same.values())) / len(rows)
    # Where both always say the same word there is nothing beyond chance to measure; by convention 1 if they agree.
    kappa = (agreed - chance) / (1 - chance) if chance < 1 else 1.0
    return Agreement(agreed, kappa, rate.low, rate.high, len(rows), len(same))


def title_hash(title: str) -> str:
    """64 bits of SHA-256 of a title, by which the shipped grader knows what it was calibrated on."""
    return hashlib.sha256(title.encode()).hexdigest()[:16]


def title_share(title: str, salt: str = "") -> float:
    """A number in [0, 1) that a title always gets, spread evenly over titles: for splits that need no list."""
    return int(hashlib.sha256((salt + title).encode()).hexdigest()[:8], 16) / 2**32
