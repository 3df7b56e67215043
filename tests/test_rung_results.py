"""The result of a rung: its figures in the summary."""

from __future__ import annotations

import pytest

from selfedit.evaluation.rungs.base import Result
from selfedit.rewards.examiner import Worth
from selfedit.types import Answer, Probe, Task


def _task(n: int) -> Task:
    return Task(f"task-{n}", "", ("A passage.",), (Probe("Who?", "Mara"), Probe("Where?", "Sile")))


def _answers(*logprobs: float) -> tuple[Answer, ...]:
    return tuple(Answer("Who?", "Mara", "", False, logprob) for logprob in logprobs)


def test_the_log_likelihood_is_a_mean_over_graded_tasks() -> None:
    worths = [Worth(0.0, -2.0, 0.0), Worth(None, -9.0, problem="no judge"), Worth(0.0, -4.0, 0.0)]
    answers = [_answers(-1.0, -3.0), _answers(-9.0, -9.0), _answers(-4.0, -4.0)]
    row = Result.of_graded("no_edit", [_task(n) for n in range(3)], worths, answers).row()
    assert row["logprob"] == pytest.approx(-3.0)
    assert (row["accuracy"], row["ungraded_tasks"]) == (0.0, 1)


def test_without_a_graded_task_there_is_no_log_likelihood() -> None:
    row = Result.of_graded("no_edit", [_task(0)], [Worth(None, -2.0, problem="no judge")], [_answers(-2.0)]).row()
    assert row["logprob"] is None
