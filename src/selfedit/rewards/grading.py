"""Is an answer right? One interface for string rules, the offline grader and a judge; not knowing is an answer, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..config import Settings
from .graders import exact_match, grid_match
from .offline import offline_match


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


Grader = Callable[[Sequence[Case]], list[Verdict]]


def make_grader(settings: Settings, purse: str = "") -> Grader:
    """The grader that these settings ask for. Rewards that do not grade (log-likelihoods) take SQuAD's exact match for reports.

    ``purse``: whose budget a judge spends (`judge.Judge`).

    Raises:
        SettingsError: the judge's client is not installed, or its cache can't be opened.
    """
    if settings.reward.metric == "judge":
        from .judge import Judge

        return Judge(settings.reward.judge, purse).grade
    return by_rule(settings.reward.metric)


def by_rule(name: str) -> Grader:
    """The grader of one of `RULES`; SQuAD's exact match for any other name."""
    rule = RULES.get(name, RULES["exact_match"])
    return lambda cases: [_verdict(rule, case) for case in cases]


def _verdict(rule: Callable[[Case], bool], case: Case) -> Verdict:
    try:
        return Verdict(rule(case))
    except ValueError as error:  # a gold that the rule can't compare with
        return Verdict(None, str(error))


RULES: dict[str, Callable[[Case], bool]] = {
    "exact": lambda case: case.text in case.golds,
    "exact_match": lambda case: exact_match(case.text, case.golds),
    "offline": lambda case: offline_match(case.question, case.golds, case.text),
    "grid": lambda case: grid_match(case.text, case.golds),
}
