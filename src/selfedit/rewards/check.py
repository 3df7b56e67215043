"""Before any training: the grader has to call gold answers right, and another question's gold answer wrong.

A grader that fails it makes every reward of a run worthless, and a judge may fail for a reason as plain as a wrong prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import Settings
from ..errors import GraderError
from ..types import Answer, Probe, Task
from .metrics.base import Case, make_metric
from .metrics.judge import REASKED, JudgeSettings
from .terms.custom import call_custom, load_custom

ENOUGH = 0.95  # of the gold answers must be right, and of all answers must get a verdict
TOO_MANY = 0.5  # of the other questions' answers called right: the grader hardly looks at them
MOST = 200  # probes that are checked
_SURE, _UNSURE = -0.1, -5.0  # log-likelihoods that a user's reward is shown with gold answers and with empty ones


@dataclass(frozen=True)
class GraderCheck:
    """The verdicts of a grader (``of``) on known answers: gold ones, and ones that belong to other questions.

    ``rejected`` shows some gold answers that it does not call right, with the reason where it gave no verdict.
    """

    of: str
    n: int
    golds_right: int
    others_right: int
    ungraded: int
    rejected: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why no run may be based on this grader; empty where one may."""
        if self.golds_right < ENOUGH * self.n:
            return f"{self.of} calls only {self.golds_right} of {self.n} gold answers right"
        if self.others_right > TOO_MANY * self.n:
            return f"{self.of} calls {self.others_right} of {self.n} answers right that belong to other questions"
        if self.ungraded > (1 - ENOUGH) * 2 * self.n:
            return f"{self.of} gives no verdict on {self.ungraded} of {2 * self.n} answers"
        return ""

    def __str__(self) -> str:
        missing = f"; it gives no verdict on {self.ungraded} answers" if self.ungraded else ""
        found = (
            f"The grader ({self.of}) calls {self.golds_right} of {self.n} gold answers right, and {self.others_right} wrong "
            f"ones{missing}."
        )
        return "\n".join([found, *(f"  not called right: {text}" for text in self.rejected)])


def check_grader(settings: Settings, tasks: Sequence[Task]) -> list[GraderCheck]:
    """Grade gold answers, and answers to other questions, with everything that grades texts in a run: its metric, the metrics
    among the reward's terms, and the user's own reward (task by task).

    A judge is asked about at most 2 * MOST answers, and never more often than its budget allows, even if it has to be asked
    again about each; a run's own budget is not charged.

    Raises:
        GraderError: the judge refuses, or there is nothing to check with.
    """
    reward, most = settings.reward, MOST
    if reward.metric == "judge":
        most = min(MOST, max(1, reward.own("judge", JudgeSettings).budget // (2 * (1 + REASKED))))
    probes = [probe for task in tasks for probe in task.probes][:most]
    if not probes:
        raise GraderError(
            "there are no questions to check the grader with (a folder's are written in the run); give tasks with questions"
        )
    names = dict.fromkeys((reward.metric, *(t for t in reward.terms if reward.group_of(t) == "metrics")))
    checks = [_check(name, settings, probes) for name in names]
    return [*checks, _check_custom(settings, tasks[:MOST])] if "custom" in reward.terms else checks


def _check(name: str, settings: Settings, probes: Sequence[Probe]) -> GraderCheck:
    n, answers = len(probes), [probe.answer for probe in probes]
    # For each probe the next question's answer that is none of its own, or nothing.
    others = [next((a for a in answers[i + 1 :] + answers[:i] if a not in p.golds), "") for i, p in enumerate(probes)]
    cases = [Case(p.question, p.golds, a) for p, a in zip([*probes, *probes], [*answers, *others], strict=True)]
    verdicts = make_metric(name, settings.reward).grade(cases)
    rejected = [
        f"{case.question} {case.text}" + (f" ({verdict.problem})" if verdict.problem else "")
        for case, verdict in zip(cases[:n], verdicts[:n], strict=True)
        if verdict.right is not True
    ]
    right, ungraded = [v.right is True for v in verdicts], sum(v.right is None for v in verdicts)
    return GraderCheck(name, n, sum(right[:n]), sum(right[n:]), ungraded, tuple(rejected[:5]))


def _check_custom(settings: Settings, tasks: Sequence[Task]) -> GraderCheck:
    """For a reward of the user's own: gold answers have to be worth more than empty ones."""
    reward = load_custom(settings.reward.custom)
    rejected, ungraded = [], 0
    for task in tasks:
        golds = [Answer(p.question, p.answer, p.answer, True, _SURE, p.kind) for p in task.probes]
        empty = [Answer(p.question, p.answer, "", False, _UNSURE, p.kind) for p in task.probes]
        (right, why), (wrong, why_not) = call_custom(reward, task, golds), call_custom(reward, task, empty)
        ungraded += bool(why or why_not)
        if right is None or wrong is None or right <= wrong:
            rejected.append(f"{task.id} ({why or why_not or f'gold answers are worth {right}, empty ones {wrong}'})")
    return GraderCheck("custom", len(tasks), len(tasks) - len(rejected), 0, ungraded, tuple(rejected[:5]))
