"""From edits to outcomes on the embedded base: what did not reach the outputs does not count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from selfedit.config import make_settings
from selfedit.edits.text import text_change
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.machine import load_engine
from selfedit.inner import Trial, try_changes
from selfedit.rewards.examiner import Examiner
from selfedit.rewards.metrics.base import Case, Verdict
from selfedit.tasks.sources.world import draw_tasks
from selfedit.types import Outcome, Probe, Task

Try = Callable[..., list[Outcome]]


@pytest.fixture(scope="module")
def attempt() -> Try:
    """Two edits tried at a learning rate."""
    settings = make_settings({"model": {"dtype": "fp32"}, "inner": {"steps": 2}})
    engine = load_engine(settings)
    examiner, tasks = Examiner(engine, settings), draw_tasks("dev", ("e1",), 2, seed=2)
    before = examiner.before(tasks, on=None)

    def tried(lr: float) -> list[Outcome]:
        recipe = replace(settings.inner.recipe, lr=lr)
        changes = [text_change(settings, engine, task, [task.gold_edit], recipe=recipe) for task in tasks]
        trials = [Trial(task.id, task, change, k) for k, (task, change) in enumerate(zip(tasks, changes, strict=True))]
        return try_changes(engine, examiner, trials, before, on=None)

    tried.examiner = examiner  # type: ignore[attr-defined]
    return tried


def task_of(outcome: Outcome) -> Task:
    return next(task for task in draw_tasks("dev", ("e1",), 2, seed=2) if task.id == outcome.edit_id)


def failures(outcomes: list[Outcome]) -> list[tuple[Any, ...]]:
    return [(o.status, o.reason, o.answers, o.reward, o.gain, o.adapter_sha256) for o in outcomes]


def test_a_trained_edit_has_answers_a_reward_and_a_gain(attempt: Try) -> None:
    for outcome in attempt(lr=1e-3):
        assert (outcome.status, outcome.reason) == ("ok", "")
        assert outcome.answers
        assert None not in (outcome.reward, outcome.gain, outcome.logprob)
        bare = attempt.examiner.answers([task_of(outcome)], on=None)[0]  # type: ignore[attr-defined]
        for of in ("logprob", "probability"):
            levels = [fmean(getattr(answer, of) for answer in answers) for answers in (outcome.answers, bare)]
            assert getattr(outcome, of) == pytest.approx(levels[0] - levels[1], abs=1e-6)


def test_an_edit_whose_adapter_changes_nothing_is_a_failure_not_a_zero(attempt: Try) -> None:
    unchanged = ("diverged", "the trained adapter changes no output", (), None, None, "")
    outcomes = attempt(lr=1e-30)
    assert failures(outcomes) == [unchanged] * 2
    assert all(outcome.trained_tokens > 0 for outcome in outcomes)


def test_an_edit_whose_outputs_are_not_finite_is_a_failure(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = TorchEngine.apply

    def overflowing(*args: Any, **settings: Any) -> Any:
        bank = apply(*args, **settings)
        bank.shift[1] = math.nan
        return bank

    monkeypatch.setattr(TorchEngine, "apply", overflowing)
    well, ill = attempt(lr=1e-3)
    assert well.status == "ok"
    assert failures([ill]) == [("diverged", "the trained adapter's outputs are not finite", (), None, None, "")]


def test_nobody_is_asked_about_answers_of_a_failed_training(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Case] = []

    def grade(cases: Sequence[Case]) -> list[Verdict]:
        asked.extend(cases)
        return [Verdict(False) for _ in cases]

    examiner: Examiner = attempt.examiner  # type: ignore[attr-defined]
    monkeypatch.setattr(examiner.metric, "grade", grade)
    assert {outcome.status for outcome in attempt(lr=1e-30)} == {"diverged"}
    assert asked == []
    assert {outcome.status for outcome in attempt(lr=1e-3)} == {"ok"}
    assert asked


@pytest.mark.parametrize(("metric", "right"), [("exact_match", False), ("offline", True)])
def test_the_offline_grader_reads_an_answer_in_other_words_with_its_question(
    monkeypatch: pytest.MonkeyPatch, metric: str, right: bool
) -> None:
    settings = make_settings({"model": {"dtype": "fp32"}, "reward": {"metric": metric}})
    engine = load_engine(settings)
    examiner = Examiner(engine, settings)
    task = Task("t", "Emma", ("Emma.",), (Probe("Who wrote Emma?", "Jane Austen"),))
    monkeypatch.setattr(engine, "answer", lambda *_, **__: [["Emma was written by Jane Austen."]])
    (answers,) = examiner.answers([task], on=None)
    assert answers[0].correct is right
    assert examiner.worth(task, answers, None).reward == right
