"""The offline grader: is a free-form answer right? Without a paid judge, and with its reasons.

Features (`features.py`) go through small trees whose leaves add up to log-odds. The table is `assets/grader/grader.json`,
calibrated on verdicts of GPT-4.1 by `calibrate.py`; `docs/grader.md` says how well it agrees with them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .features import Rarity, case_of, features
from .graders import checked_golds, exact_match, normalise

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "grader" / "grader.json"
# A leaf is [value]; a split is [value, feature, threshold, left, right]: see boosting.py, which this file does not import,
# so that grading needs no numpy.
Tree = list[list[float]]
_CERTAIN = 0.999


@dataclass(frozen=True)
class Reason:
    """What a feature added to the log-odds of "right" for one answer."""

    feature: str
    value: float
    weight: float


@dataclass(frozen=True)
class Grade:
    """A judged answer: the probability that it is right, the verdict, and why.

    ``reasons`` (the strongest first) and ``base`` add up to the log-odds of ``probability``. Where ``rule`` is not empty, it
    decided alone.
    """

    probability: float
    right: bool
    gold: str
    rule: str = ""
    base: float = 0.0
    reasons: tuple[Reason, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Grader:
    """A calibrated table of trees."""

    names: tuple[str, ...]
    rarity: Rarity
    base: float
    trees: list[Tree]
    titles: frozenset[str] = frozenset()
    report: dict[str, Any] = field(default_factory=dict)

    def grade(self, question: str, golds: Sequence[str], text: str) -> Grade:
        """The most favourable grade of ``text`` over ``golds``; never fails on a text, whatever it holds.

        Raises:
            ValueError: ``golds`` is empty.
            TypeError: ``golds`` is one string instead of a sequence of strings.
        """
        return max((self._grade(question, gold, text) for gold in checked_golds(golds)), key=lambda g: g.probability)

    def _grade(self, question: str, gold: str, text: str) -> Grade:
        if text.strip() and exact_match(text, [gold]):
            return Grade(_CERTAIN, True, gold, "equals the gold but for case, punctuation and articles")
        if not normalise(text):
            return Grade(1 - _CERTAIN, False, gold, "says nothing")
        values = features(case_of(question, gold, text, self.rarity))
        row = [values[name] for name in self.names]
        base, weights = self.base, [0.0] * len(row)
        for tree in self.trees:
            node = tree[0]
            base += node[0]
            while len(node) > 1:
                feature, threshold, left, right = int(node[1]), node[2], int(node[3]), int(node[4])
                child = tree[left if row[feature] <= threshold else right]
                weights[feature] += child[0] - node[0]
                node = child
        probability = 1 / (1 + math.exp(-(base + sum(weights))))
        reasons = (Reason(*reason) for reason in zip(self.names, row, weights, strict=True))
        strongest = tuple(sorted(reasons, key=lambda reason: -abs(reason.weight)))
        return Grade(probability, probability >= 0.5, gold, "", base, strongest)


@lru_cache(maxsize=4)
def load_grader(path: Path = SHIPPED) -> Grader:
    """The grader in a file that `calibrate.py` wrote; by default the shipped one."""
    table = json.loads(path.read_text(encoding="utf-8"))
    rarity = Rarity(table["rarity"]["n"], table["rarity"]["counts"])
    return Grader(
        tuple(table["features"]),
        rarity,
        table["base"],
        table["trees"],
        frozenset(table["titles"]),
        {name: table[name] for name in ("date", "n", "plan", "figures", "data_sha256")},
    )


def offline(question: str, golds: Sequence[str], text: str) -> float:
    """The probability (0..1) that ``text`` answers ``question`` right; of several ``golds`` the most favourable counts.

    Bounded in time: 400 characters of the question and of a gold are read, 2 000 of the text.

    Raises:
        ValueError: ``golds`` is empty.
        TypeError: ``golds`` is one string instead of a sequence of strings.
    """
    return load_grader().grade(question, golds, text).probability


def offline_match(question: str, golds: Sequence[str], text: str) -> bool:
    """Whether ``text`` answers ``question`` right: `offline` says that it is more likely than not, with the same errors."""
    return load_grader().grade(question, golds, text).right
