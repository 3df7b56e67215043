"""The offline grader: whether a free-form answer is right, without a paid judge, and with its reasons.

Rules decide first (`decisive.py`, exact match); else a table gives each feature (`features.py`) points, which add up to the
log-odds of "right". `docs/grader.md` says how the table was calibrated and how well the grader agrees with a judge.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..characters import unified
from .decisive import ASSETS, lacking, marks, turned_round
from .features import MAX_ANSWER_CHARS, MAX_CHARS, features, number_words, stems
from .string_rules import checked_golds, exact_match, normalise

SHIPPED = ASSETS / "grader.json"
_CERTAIN = 0.999  # probability of what a rule decides
_LEADS = frozenset({"option", "answer", "choice", "letter"})  # that a letter may follow; six letters, as all stems


class Points(NamedTuple):
    """The points of one feature (log-odds): ``points[i]`` where exactly i of the ``cuts`` (ascending) are below its value."""

    cuts: tuple[float, ...]
    points: tuple[float, ...]

    def of(self, value: float) -> float:
        """The points for ``value``."""
        return self.points[bisect_left(self.cuts, value)]


class Reason(NamedTuple):
    """The points that a feature's value gave to one answer."""

    feature: str
    value: float
    points: float


@dataclass(frozen=True)
class Grade:
    """A graded answer: the probability that it is right, the verdict, and why: the ``rule`` that decided alone, or else
    ``reasons`` (the strongest first), which add up with ``base`` to the log-odds of ``probability``.
    """

    probability: float
    right: bool
    rule: str = ""
    base: float = 0.0
    reasons: tuple[Reason, ...] = field(default=(), repr=False)


def decided(question: str, gold: str, answer: str) -> tuple[bool | None, str]:
    """The verdict of the rules and its reason; None where no rule decides."""
    if answer.strip() and answer.strip() == gold.strip():
        return True, "equals the gold answer"
    question, gold, answer = question[:MAX_CHARS], gold.strip()[:MAX_CHARS], answer.strip()[:MAX_ANSWER_CHARS]
    if not normalise(gold) and not marks(gold) and unified(answer).strip().casefold() == unified(gold).strip().casefold() != "":
        return True, "equals the gold answer, except for case"  # "The", which would be left out as an article
    if not normalise(answer) and not marks(answer):
        return False, "has no words"
    if missing := lacking(marks(gold), marks(answer, given=True)):
        return False, f"lacks {' '.join(missing[0]).strip()}"
    if pair := turned_round(gold, answer):
        return False, f"gives {pair}"
    words, wanted = _words(answer), _words(gold)
    if words <= wanted and (more := lacking(marks(answer), marks(gold, True) | marks(question, True))):
        return False, f"adds {' '.join(more[0]).strip()}"
    named = words <= _words(question) | _LEADS and not any(mark.text[:1].isdigit() for mark in marks(gold))  # "option A"
    if not wanted and marks(gold) and (not words or (named and not lacking(marks(answer), marks(gold) | marks(question)))):
        return True, "gives the same number, letter or symbol and nothing else"
    if exact_match(answer, [gold]):
        return True, "equals the gold answer, except for case, punctuation and articles"
    return None, ""


def _words(text: str) -> set[str]:
    """The words of ``text`` that carry meaning, numbers, units and single letters aside."""
    return {word for word in stems(text) if len(word) > 1 and not word[0].isdigit()} - number_words()


@dataclass(frozen=True)
class Grader:
    """A calibrated table; ``titles`` are the hashes of those that it was calibrated on, ``report`` how and when."""

    base: float
    table: Mapping[str, Points]
    titles: frozenset[str] = frozenset()
    report: Mapping[str, Any] = field(default_factory=dict)

    def grade(self, question: str, golds: Sequence[str], text: str) -> Grade:
        """The most favourable grade of ``text`` over ``golds``; errors as `string_rules.exact_match`.

        Reads 400 characters of the question and of a gold and 2 000 of the text, and fails on no text.
        """
        return max((self._grade(question, gold, text) for gold in checked_golds(golds)), key=lambda g: g.probability)

    def _grade(self, question: str, gold: str, text: str) -> Grade:
        right, rule = decided(question, gold, text)
        if right is not None:
            return Grade(_CERTAIN if right else 1 - _CERTAIN, right, rule)
        values = features(question, gold, text)
        reasons = [Reason(name, values[name], points.of(values[name])) for name, points in self.table.items()]
        probability = 1 / (1 + math.exp(-(self.base + sum(reason.points for reason in reasons))))
        strongest = tuple(sorted(reasons, key=lambda reason: -abs(reason.points)))
        return Grade(probability, probability >= 0.5, "", self.base, strongest)


@lru_cache(maxsize=4)
def load_grader(path: Path = SHIPPED) -> Grader:
    """The grader in a file that `tools/calibrate_grader.py` wrote; by default the shipped one."""
    data = json.loads(path.read_text(encoding="utf-8"))
    table = {name: Points(tuple(row["cuts"]), tuple(row["points"])) for name, row in data.pop("table").items()}
    return Grader(data.pop("base"), table, frozenset(data.pop("titles")), data)
