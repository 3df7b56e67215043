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
from .grading import Case, Verdict, make_grader

ENOUGH = 0.95  # of the gold answers have to be called right
MOST = 200  # probes are looked at


@dataclass(frozen=True)
class GraderCheck:
    """What a grader says of answers that are known: the gold ones, and ones that belong to other questions.

    ``rejected`` shows some gold answers that it does not call right, with the reason where it gave none of its verdicts.
    """

    n: int
    golds_right: int
    others_right: int
    ungraded: int
    rejected: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether a run may be based on it."""
        return self.golds_right >= ENOUGH * self.n and self.others_right < self.golds_right

    def __str__(self) -> str:
        missing = f"; {self.ungraded} verdicts could not be had" if self.ungraded else ""
        said = f"The grader calls {self.golds_right} of {self.n} gold answers right, and {self.others_right} wrong ones{missing}."
        return "\n".join([said, *(f"  not called right: {text}" for text in self.rejected)])


def check_grader(settings: Settings, tasks: Sequence[Task]) -> GraderCheck:
    """Put gold answers, and answers to other questions, through the grader (or the user's reward, a task at a time).

    Raises:
        GraderError: the judge refuses, or there is nothing to check with.
    """
    if settings.reward.custom:
        return _check_custom(settings, tasks[:MOST])
    probes = [probe for task in tasks for probe in task.probes][:MOST]
    if not probes:
        raise GraderError("there are no questions to check the grader with; give tasks with questions")
    golds = [Case(probe.question, probe.golds, probe.answer) for probe in probes]
    others = [Case(probe.question, probe.golds, _other(probe, probes)) for probe in probes]
    verdicts = make_grader(settings)([*golds, *others])
    of_golds, of_others = verdicts[: len(probes)], verdicts[len(probes) :]
    rejected = [_told(case, v) for case, v in zip(golds, of_golds, strict=True) if v.right is not True]
    return GraderCheck(
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
                [Answer(p.question, p.answer, p.answer if ok else "", ok, -1.0, p.kind) for p in task.probes],
            )
            for ok in (True, False)
        )
        problem = right[1] or wrong[1]
        ungraded += bool(problem)
        if not problem and right[0] is not None and wrong[0] is not None and right[0] > wrong[0]:
            better += 1
        else:
            rejected.append(f"{task.id} ({problem or f'gold answers are worth {right[0]}, empty ones {wrong[0]}'})")
    return GraderCheck(len(tasks), better, 0, ungraded, tuple(rejected[:5]))
