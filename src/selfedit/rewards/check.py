"""Before any training: the grader has to call gold answers right, and another question's gold answer wrong.

A grader that fails here makes every reward of a run worthless, and a judge may fail for reasons as plain as a wrong prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import Settings
from ..errors import GraderError
from ..types import Answer, Probe, Task
from .custom import call_custom, load_custom
from .grading import RULES, Case, Grader, Verdict, by_rule, make_grader
from .judge import REASKED

ENOUGH = 0.95  # of the gold answers have to be called right, and of all verdicts to be had
TOO_MANY = 0.5  # of the other questions' answers called right: it hardly looks at them
MOST = 200  # probes are looked at
_SURE, _UNSURE = -0.1, -5.0  # log-likelihoods that a user's reward is shown with gold answers and with empty ones


@dataclass(frozen=True)
class GraderCheck:
    """What a grader (``of``) says of answers that are known: the gold ones, and ones that belong to other questions.

    ``rejected`` shows some gold answers that it does not call right, with the reason where it gave none of its verdicts.
    """

    of: str
    n: int
    golds_right: int
    others_right: int
    ungraded: int
    rejected: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Why no run may be based on it; empty where one may."""
        if self.golds_right < ENOUGH * self.n:
            return f"{self.of} calls only {self.golds_right} of {self.n} gold answers right"
        if self.others_right > TOO_MANY * self.n:
            return f"{self.of} calls {self.others_right} of {self.n} answers right that belong to other questions"
        if self.ungraded > (1 - ENOUGH) * 2 * self.n:
            return f"{self.of} gives no verdict on {self.ungraded} of {2 * self.n} answers"
        return ""

    def __str__(self) -> str:
        missing = f"; {self.ungraded} verdicts could not be had" if self.ungraded else ""
        said = (
            f"The grader ({self.of}) calls {self.golds_right} of {self.n} gold answers right, and {self.others_right} wrong "
            f"ones{missing}."
        )
        return "\n".join([said, *(f"  not called right: {text}" for text in self.rejected)])


def check_grader(settings: Settings, tasks: Sequence[Task]) -> list[GraderCheck]:
    """Put gold answers, and answers to other questions, through whatever grades texts in a run: the grader of its metric, the
    rules among the reward's terms and, a task at a time, the user's own reward. A judge is asked about at most 2 * MOST
    answers, and no more often than its budget allows, even if it has to be asked each again; a run's own budget is not touched.

    Raises:
        GraderError: the judge refuses, or there is nothing to check with.
    """
    reward = settings.reward
    most = MOST
    if reward.metric == "judge":
        most = min(MOST, max(1, reward.judge.budget // (2 * (1 + REASKED))))
    probes = [probe for task in tasks for probe in task.probes][:most]
    if not probes:
        raise GraderError(
            "there are no questions to check the grader with (a folder's are written in the run); give tasks with questions"
        )
    checks = [_check(reward.metric, make_grader(settings), probes)]
    checks += [_check(term, by_rule(term), probes) for term in reward.terms if term in RULES and term != reward.metric]
    if "custom" in reward.terms:
        checks.append(_check_custom(settings, tasks[:MOST]))
    return checks


def _check(name: str, grader: Grader, probes: Sequence[Probe]) -> GraderCheck:
    golds = [Case(probe.question, probe.golds, probe.answer) for probe in probes]
    others = [Case(probe.question, probe.golds, _other(probe, probes)) for probe in probes]
    verdicts = grader([*golds, *others])
    of_golds, of_others = verdicts[: len(probes)], verdicts[len(probes) :]
    rejected = [_told(case, v) for case, v in zip(golds, of_golds, strict=True) if v.right is not True]
    return GraderCheck(
        of=name,
        n=len(probes),
        golds_right=sum(v.right is True for v in of_golds),
        others_right=sum(v.right is True for v in of_others),
        ungraded=sum(v.right is None for v in verdicts),
        rejected=tuple(rejected[:5]),
    )


def _told(case: Case, verdict: Verdict) -> str:
    return f"{case.question} {case.text}" + (f" ({verdict.problem})" if verdict.problem else "")


def _other(probe: Probe, probes: Sequence[Probe]) -> str:
    """An answer that is none of the probe's own: the next question's that differs, or nothing."""
    place = next(i for i, other in enumerate(probes) if other is probe)
    around = [*probes[place + 1 :], *probes[:place]]
    return next((other.answer for other in around if other.answer not in probe.golds), "")


def _check_custom(settings: Settings, tasks: Sequence[Task]) -> GraderCheck:
    """For a reward of the user's own: gold answers have to be worth more than empty ones."""
    reward = load_custom(settings.reward.custom)
    better = ungraded = 0
    rejected = []
    for task in tasks:
        right, wrong = (
            call_custom(
                reward,
                task,
                [Answer(p.question, p.answer, p.answer if ok else "", ok, sure, p.kind) for p in task.probes],
            )
            for ok, sure in ((True, _SURE), (False, _UNSURE))
        )
        problem = right[1] or wrong[1]
        ungraded += bool(problem)
        if not problem and right[0] is not None and wrong[0] is not None and right[0] > wrong[0]:
            better += 1
        else:
            rejected.append(f"{task.id} ({problem or f'gold answers are worth {right[0]}, empty ones {wrong[0]}'})")
    return GraderCheck("custom", len(tasks), better, 0, ungraded, tuple(rejected[:5]))
