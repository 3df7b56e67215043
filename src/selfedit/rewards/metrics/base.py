"""Is an answer right? One interface for string rules, the offline grader and a judge; not knowing is an answer, too."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...config import RewardSettings
from ...plugins import find, names


@dataclass(frozen=True)
class Case:
    """An answer to be graded: the question, every gold answer, and what was said."""

    question: str
    golds: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right; None where that could not be found out, and ``problem`` says why."""

    right: bool | None
    problem: str = ""


class Metric(Protocol):
    """What calls an answer right, made from the section ``[reward]`` and the run whose judge budget is charged:
    ``Kind(settings, budget_key)``. Its own settings, if any, are the pydantic model ``Settings``.

    A metric with partial credit has a method ``credit(case) -> float`` (0..1) besides: what an answer counts in accuracy and
    reward.
    """

    def grade(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict per case."""
        ...


class Rule(ABC):
    """Base of metrics that are a rule for one case."""

    def __init__(self, settings: RewardSettings, budget_key: str = "") -> None:
        self.settings = settings

    @abstractmethod
    def right(self, case: Case) -> bool:
        """Whether the answer is right; raises ValueError where the rule can't compare with a gold answer."""

    def grade(self, cases: Sequence[Case]) -> list[Verdict]:
        """See `Metric`."""
        return [self._verdict(case) for case in cases]

    def _verdict(self, case: Case) -> Verdict:
        try:
            return Verdict(self.right(case))
        except ValueError as error:
            return Verdict(None, str(error))


def make_metric(name: str, settings: RewardSettings, budget_key: str = "") -> Metric:
    """The metric of that name. Rewards that do not grade (log-likelihoods) take SQuAD's exact match, for reports.

    Raises:
        SettingsError: the judge's client is not installed, or its cache can't be opened.
    """
    made: Metric = find("metrics", name if name in names("metrics") else "exact_match")(settings, budget_key)
    return made
