"""A user's own reward: whatever it does, only one finite number is a reward."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selfedit.config import make_settings
from selfedit.errors import GraderError, SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.rewards.check import check_grader
from selfedit.rewards.examiner import Examiner, Worth, refuse_all_ungraded
from selfedit.rewards.terms.custom import call_custom, load_custom
from selfedit.types import Answer, Probe, Task

TASK = Task("t", "T", ("context",), (Probe("Where?", "Lyon"),))
ANSWERS = (Answer("Where?", "Lyon", "Paris", False, -1.0),)
FUNCTIONS = """
def share(task, answers):
    return sum(a.correct for a in answers) / len(answers)

def sometimes(task, answers):
    if sum(map(ord, task.id)) % 2:
        raise KeyError("price")
    return float(sum(a.correct for a in answers))

def never(task, answers):
    return float("nan")

def likely(task, answers):
    return sum(a.logprob for a in answers)

constant = 3
"""


class Raising:
    """What a user's function may return: every question about it raises."""

    def __len__(self) -> int:
        raise KeyError("length")

    def __float__(self) -> float:
        raise ZeroDivisionError

    def __str__(self) -> str:
        raise ValueError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of rewards in the current directory; its name."""
    name = f"own_rewards_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("number", [1, 0.25, True, np.float32(0.25), torch.tensor(0.25), -2.0])
def test_a_number_of_any_kind_is_a_reward(number: Any) -> None:
    assert call_custom(lambda task, answers: number, TASK, ANSWERS) == (float(number), "")


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (math.nan, "returned nan"),
        (math.inf, "returned inf"),
        (None, "returned NoneType, not a number"),
        ([0.5, 0.5], "returned list of 2, not one number"),
        ((), "returned tuple of 0"),
        (np.ones(3), "returned ndarray of 3"),
        (torch.ones(1), "returned Tensor of 1"),
        ("0.5", "returned str of 3"),
        ({"reward": 1.0}, "returned dict of 1"),
        (1j, "not a number"),
        (10**400, "returned int, not a number (OverflowError)"),
        (Raising(), "returned Raising, not a number (ZeroDivisionError)"),
    ],
)
def test_anything_else_is_no_reward(returned: Any, problem: str) -> None:
    value, said = call_custom(lambda task, answers: returned, TASK, ANSWERS)
    assert value is None
    assert problem in said


def test_one_that_raises_is_no_reward() -> None:
    def broken(task: Task, answers: Any) -> float:
        raise ZeroDivisionError("no\nanswers")

    assert call_custom(broken, TASK, ANSWERS) == (None, "reward.custom raised ZeroDivisionError: no answers")


def test_it_is_found_in_the_current_directory(module: str) -> None:
    assert load_custom(f"{module}:share")(TASK, ANSWERS) == 0.0


@pytest.mark.parametrize("name", ["nowhere:share", "{}:missing", "{}:constant", "{}", ""])
def test_one_that_cannot_be_had_is_a_settings_error(name: str, module: str) -> None:
    with pytest.raises(SettingsError, match=r"reward\.custom"):
        load_custom(name.format(module))


def test_a_run_keeps_failures_apart_and_stops_where_nothing_can_be_had(
    module: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    def own(name: str) -> dict[str, Any]:
        reward = fields["reward"] | {"custom": f"{module}:{name}"}
        return fields | {"reward": reward, "ladder": fields["ladder"] | {"rungs": ["no_edit"]}}

    tasks = {"per_round": 4, "dev": 4, "evaluation": 4, "probes_per_kind": 1}
    run_experiment(make_settings(own("sometimes") | {"tasks": tasks}), tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "journal.db") as db:
        rows = db.execute("select edit_id, status, reason, reward from outcomes").fetchall()
    for edit, status, reason, reward in rows:
        failed = sum(map(ord, edit.split("#")[0])) % 2
        assert status == ("ungraded" if failed else "ok")
        assert (reward is None) == bool(failed)
        assert reason == ("reward.custom raised KeyError: 'price'" if failed else "")
    assert {status for _, status, *_ in rows} == {"ok", "ungraded"}
    with pytest.raises(GraderError, match=r"not one of 4 tasks could be graded \(reward\.custom returned nan\)"):
        run_experiment(make_settings(own("never") | {"tasks": tasks}), tmp_path / "never")


@pytest.mark.parametrize(
    ("name", "problem", "ungraded"), [("share", "", 0), ("likely", "", 0), ("never", "custom calls only 0 of 1", 1)]
)
def test_gold_answers_have_to_be_worth_more_than_empty_ones(name: str, problem: str, ungraded: int, module: str) -> None:
    _, found = check_grader(make_settings({"reward": {"custom": f"{module}:{name}"}}), [TASK])
    assert found.of == "custom"
    assert found.problem.startswith(problem)
    assert bool(found.problem) is bool(problem)
    assert found.ungraded == ungraded


def test_a_run_stops_where_so_much_fails_that_the_reward_is_broken_and_for_no_task_of_its_own() -> None:
    tasks = [Task(f"t{i}", "T", ("c",), TASK.probes) for i in range(4)]
    lost, known = Worth(None, -1.0, problem="no price"), Worth(0.0, -1.0, 0.0)
    refuse_all_ungraded([tasks[0]] * 20, [lost] * 20, [lost] * 20)  # that task can't be graded
    refuse_all_ungraded([tasks[0]] * 7, [lost] * 7, [known] * 7)
    refuse_all_ungraded(tasks[:2], [lost] * 2, [lost] * 2)
    refuse_all_ungraded(tasks * 2, [*[lost] * 7, known], [known] * 8)
    with pytest.raises(GraderError, match=r"not one of 4 tasks could be graded \(no price\)"):
        refuse_all_ungraded(tasks, [lost] * 4)
    with pytest.raises(GraderError, match=r"not one of 8 edits of 2 tasks could be graded"):
        refuse_all_ungraded(tasks[:2] * 4, [lost] * 8, [lost] * 8)
    with pytest.raises(GraderError, match=r"not one of 8 edits of 1 task could be graded"):
        refuse_all_ungraded([tasks[0]] * 8, [lost] * 8, [known] * 8)


def test_a_reward_that_breaks_on_the_way_stops_the_run(
    module: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {
        "reward": {"custom": f"{module}:share"},
        "tasks": {"per_round": 1, "dev": 1, "evaluation": 1, "probes_per_kind": 1},
        "edits": {"per_task": 16, "max_new_tokens": 24},
    }

    answers = Examiner.answers

    def broken_by_then(self: Examiner, tasks: Any, **on: Any) -> Any:
        if on.get("members") is not None and len(tasks) > 1:  # the round's edits, and not the look before them
            monkeypatch.setattr("selfedit.rewards.terms.custom.call_custom", lambda *_: (None, "the price list is gone"))
        return answers(self, tasks, **on)

    monkeypatch.setattr(Examiner, "answers", broken_by_then)
    with pytest.raises(GraderError, match=r"edits of 1 task could be graded \(the price list is gone\)"):
        run_experiment(make_settings(fields | few), tmp_path / "run")
