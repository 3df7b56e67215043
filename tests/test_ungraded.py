"""Outcomes that say nothing are neither the un-edited model nor a zero, and guards compare like with like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit.config import make_settings
from selfedit.evaluation.experiment import run_experiment
from selfedit.guards.base import Look, Subject, best_of, dev_change
from selfedit.guards.budget import Budget
from selfedit.inner import InnerLoop, Trial
from selfedit.types import Outcome, Status


def as_failures(outcomes: Sequence[Outcome], status: Status) -> list[Outcome]:
    return [replace(o, status=status, reason="why", answers=(), reward=None, gain=None, logprob=None) for o in outcomes]


@pytest.fixture
def learning_rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Runs in which no base edit of the oracle's can be graded and the second learning rate diverges; the rates by stage."""
    rates: dict[str, float] = {}
    outcomes = InnerLoop.outcomes

    def failing(self: InnerLoop, key: str, trials: Sequence[Trial], before: Any, *, on: Any) -> list[Outcome]:
        rates[key] = next(trial.change.update.lr for trial in trials if trial.change.update)
        found = outcomes(self, key, trials, before, on=on)
        if key == "ladder/best_of_k":
            return as_failures(found, "ungraded")
        if key.startswith("ladder/passage-lr"):
            # Each is worth a little more than the un-edited model, but for the second.
            better = [replace(o, reward=w.reward + 0.1, gain=0.1) for o, w in zip(found, before, strict=True)]
            return as_failures(found, "diverged") if len([k for k in rates if "passage-lr" in k]) == 2 else better
        return found

    monkeypatch.setattr(InnerLoop, "outcomes", failing)
    return rates


def test_outcomes_that_say_nothing_are_neither_the_unedited_model_nor_a_zero(
    fields: dict[str, Any], learning_rates: dict[str, float], tmp_path: Path
) -> None:
    ladder = fields["ladder"] | {"rungs": ["no_edit", "passage_only", "best_of_k"]}
    settings = make_settings(fields | {"reward": {"metric": "logprob"}, "ladder": ladder})
    summary = run_experiment(settings, tmp_path / "run")
    rows = {row["rung"]: row for row in summary["ladder"]}
    assert (rows["best_of_k"]["n_tasks"], rows["best_of_k"]["ungraded_tasks"]) == (0, 2)
    assert rows["best_of_k"]["accuracy"] is None
    assert learning_rates["ladder/passage_only"] == settings.inner.lr  # a reward of 0 would beat every log-likelihood


def look(**dev: float) -> Look:
    accuracy = sum(dev.values()) / len(dev) if dev else None
    figures = {"kl": 0.0, "retention": None, "norm_ratio": 0.0, "dev_accuracy": accuracy, "dev_tasks": len(dev)}
    return Look({"budget": figures}, dev, {})


def test_development_tasks_are_compared_where_both_could_be_graded() -> None:
    objections = Budget(make_settings({}).guards).objections
    base, after = look(a=1.0, b=0.0), look(b=0.0, c=0.0)
    assert dev_change(after, base) == 0.0
    assert objections(after, base, base) == []  # though the mean of what was graded fell from .5 to 0
    fell, nothing = look(a=0.0), look()
    assert "development accuracy fell by 1.000" in objections(fell, base, base)[0]
    assert objections(nothing, base, base) == []
    assert best_of(base, nothing) is base
    assert best_of(nothing, base) is base
    assert best_of(base, after) is base
    assert best_of(fell, base) is base


def test_a_budget_says_what_it_measured_where_no_development_task_could_be_graded() -> None:
    budget, engine = Budget(make_settings({}).guards), Examined()
    for dev, accuracy in (({"a": 1.0, "b": 0.0}, 0.5), ({}, None)):
        subject = Subject(engine, None, make_settings({}).templates, (), (), dev, (), ())  # type: ignore[arg-type]
        found = budget.measure(subject)
        assert (found["dev_accuracy"], found["dev_tasks"]) == (accuracy, len(dev))
        assert (found["kl"], found["retention"], found["norm_ratio"]) == (0.0, None, 0.0)


class Examined:
    """An engine of which nothing may be asked: the bare base is not measured against itself."""
