"""Outcomes that say nothing are neither the un-edited model nor a zero, and guards compare like with like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit.config import make_settings
from selfedit.evaluation.experiment import run_experiment
from selfedit.guards.budget import Figures, best_of, dev_change, over_budget
from selfedit.types import Outcome, Status
from selfedit.work import Work


def as_failures(outcomes: Sequence[Outcome], status: Status) -> list[Outcome]:
    return [replace(o, status=status, reason="why", answers=(), reward=None, gain=None, logprob=None) for o in outcomes]


@pytest.fixture
def learning_rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """Runs in which no base edit of the oracle's can be graded and the second learning rate diverges; the rates by stage."""
    rates: dict[str, float | None] = {}
    outcomes = Work.outcomes

    def failing(self: Work, key: str, learner: Any, trials: Any, before: Any, lr: float | None = None) -> list[Outcome]:
        rates[key] = lr
        found = outcomes(self, key, learner, trials, before, lr)
        if key == "ladder/best_of_k":
            return as_failures(found, "ungraded")
        if key.startswith(
            "ladder/passage-lr"
        ):  # each is worth a little more than the un-edited model, but for the second
            better = [replace(o, reward=w.reward + 0.1, gain=0.1) for o, w in zip(found, before, strict=True)]
            return as_failures(found, "diverged") if len([k for k in rates if "passage-lr" in k]) == 2 else better
        return found

    monkeypatch.setattr(Work, "outcomes", failing)
    return rates


def test_outcomes_that_say_nothing_are_neither_the_unedited_model_nor_a_zero(
    fields: dict[str, Any], learning_rates: dict[str, float | None], tmp_path: Path
) -> None:
    ladder = fields["ladder"] | {"rungs": ["no_edit", "passage_only", "best_of_k"]}
    settings = make_settings(fields | {"reward": {"metric": "logprob"}, "ladder": ladder})
    summary = run_experiment(settings, tmp_path / "run")
    rows = {row["rung"]: row for row in summary["ladder"]}
    assert (rows["best_of_k"]["n_tasks"], rows["best_of_k"]["ungraded_tasks"]) == (0, 2)
    assert rows["best_of_k"]["accuracy"] is None
    assert learning_rates["ladder/passage_only"] == settings.inner.lr  # a reward of 0 would beat every log-likelihood


def test_development_tasks_are_compared_where_both_could_be_graded() -> None:
    limits = make_settings({}).guards
    base = Figures(0.0, None, 0.0, {"a": 1.0, "b": 0.0})
    after = Figures(0.0, None, 0.0, {"b": 0.0, "c": 0.0})
    assert dev_change(after, base) == 0.0
    assert over_budget(after, base, base, limits) == []  # though the mean of what was graded fell from .5 to 0
    fell = Figures(0.0, None, 0.0, {"a": 0.0})
    assert "development accuracy fell by 1.000" in over_budget(fell, base, base, limits)[0]
    nothing = Figures(0.0, None, 0.0, {})
    assert over_budget(nothing, base, base, limits) == []
    assert (base.row()["dev_accuracy"], nothing.row()["dev_accuracy"], nothing.row()["dev_tasks"]) == (0.5, None, 0)
    assert best_of(base, nothing) is base
    assert best_of(nothing, base) is base
    assert best_of(base, after) is base
    assert best_of(fell, base) is base
