"""From edits to outcomes on the embedded base: what did not reach the outputs does not count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from selfedit.config import make_settings
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.experiment import load_engine
from selfedit.rewards.grading import Case, Verdict
from selfedit.rewards.outcomes import Rewarder, Trial, parse_edit
from selfedit.tasks.world.source import draw_tasks
from selfedit.types import Outcome, Probe, Task

Try = Callable[..., list[Outcome]]


@pytest.fixture(scope="module")
def attempt() -> Try:
    """Two edits tried at a learning rate."""
    settings = make_settings({"model": {"dtype": "fp32"}, "inner": {"steps": 2}})
    engine = load_engine(settings)
    rewarder, tasks = Rewarder(engine, settings), draw_tasks("dev", ("e1",), 2, seed=2)
    trials = [Trial(t.id, t, parse_edit(engine, settings, t, t.gold_edit), k) for k, t in enumerate(tasks)]
    before = rewarder.before(tasks)

    def tried(lr: float) -> list[Outcome]:
        return rewarder.outcomes(trials, before, lr=lr)

    tried.rewarder = rewarder  # type: ignore[attr-defined]
    return tried


def failures(outcomes: list[Outcome]) -> list[tuple[Any, ...]]:
    return [(o.status, o.reason, o.answers, o.reward, o.gain, o.adapter_sha256) for o in outcomes]


def test_a_trained_edit_has_answers_a_reward_and_a_gain(attempt: Try) -> None:
    for outcome in attempt(lr=1e-3):
        assert (outcome.status, outcome.reason) == ("ok", "")
        assert outcome.answers
        assert None not in (outcome.reward, outcome.gain, outcome.logprob)


def test_an_edit_whose_adapter_changes_nothing_is_a_failure_not_a_zero(attempt: Try) -> None:
    unchanged = ("diverged", "the trained adapter changes no output", (), None, None, "")
    outcomes = attempt(lr=1e-30)
    assert failures(outcomes) == [unchanged] * 2
    assert all(outcome.trained_tokens > 0 for outcome in outcomes)


def test_an_edit_whose_outputs_are_not_finite_is_a_failure(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = TorchEngine.fit

    def overflowing(*args: Any, **settings: Any) -> Any:
        bank = fit(*args, **settings)
        bank.shift[1] = math.nan
        return bank

    monkeypatch.setattr(TorchEngine, "fit", overflowing)
    well, ill = attempt(lr=1e-3)
    assert well.status == "ok"
    assert failures([ill]) == [("diverged", "the trained adapter's outputs are not finite", (), None, None, "")]


def test_nobody_is_asked_about_answers_of_a_training_that_came_to_nothing(
    attempt: Try, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Case] = []

    def grade(cases: Sequence[Case]) -> list[Verdict]:
        asked.extend(cases)
        return [Verdict(False) for _ in cases]

    rewarder: Rewarder = attempt.rewarder  # type: ignore[attr-defined]
    monkeypatch.setattr(rewarder, "grader", grade)
    assert {outcome.status for outcome in attempt(lr=1e-30)} == {"diverged"}
    assert asked == []
    assert {outcome.status for outcome in attempt(lr=1e-3)} == {"ok"}
    assert asked


@pytest.mark.parametrize(("metric", "right"), [("exact_match", False), ("offline", True)])
def test_the_offline_grader_judges_an_answer_in_other_words_by_its_question(
    monkeypatch: pytest.MonkeyPatch, metric: str, right: bool
) -> None:
    settings = make_settings({"model": {"dtype": "fp32"}, "reward": {"metric": metric}})
    rewarder = Rewarder(load_engine(settings), settings)
    task = Task("t", "Emma", ("Emma.",), (Probe("Who wrote Emma?", "Jane Austen"),))
    said = [["Emma was written by Jane Austen."]]
    monkeypatch.setattr(Rewarder, "_decoded", lambda *_: said)
    (answers,) = rewarder.answers(None, [task])
    assert answers[0].correct is right
    assert rewarder.worth(task, answers).reward == right
