"""A proxy ranks edits before any inner loop; what it leaves out is not tried, and nothing is made of that."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.config import make_settings
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.evaluation.machine import load_engine
from selfedit.evaluation.planning import plan
from selfedit.rewards.examiner import Examiner
from selfedit.rewards.seeds import to_be_tried
from selfedit.tasks.sources.world import draw_tasks
from selfedit.types import Completion, Edit

WRITTEN = Completion((1,), (2,), (0.0,), "text", True)


@given(st.lists(st.lists(st.none() | st.integers(-3, 3), max_size=6), max_size=4), st.integers(1, 4))
def test_the_best_of_each_context_are_tried_and_those_without_a_value(groups: list[list[int | None]], keep: int) -> None:
    edits = [
        Edit(f"t{g}", i, "implications", "", WRITTEN, 1.0, 1.0, 0, "base")
        for g, group in enumerate(groups)
        for i in range(len(group))
    ]
    values: dict[str, float | None] = {f"t{g}#{i}": v for g, group in enumerate(groups) for i, v in enumerate(group)}
    tried = [edit.id for edit in to_be_tried(edits, values, keep)]
    assert tried == [edit.id for edit in edits if edit.id in set(tried)]
    for g, group in enumerate(groups):
        chosen = [v for i, v in enumerate(group) if f"t{g}#{i}" in tried]
        known = sorted((v for v in group if v is not None), reverse=True)
        assert chosen.count(None) == group.count(None)
        assert sorted((v for v in chosen if v is not None), reverse=True) == known[:keep]


def test_notes_in_view_are_worth_what_they_tell() -> None:
    settings = make_settings({"model": {"dtype": "fp32"}})
    examiner = Examiner(load_engine(settings), settings)
    task, other = draw_tasks("dev", ("e1",), 2, seed=2)
    notes = [task.text, task.gold_edit, other.gold_edit, "Nothing."]
    passage, perfect, foreign, nothing = examiner.in_view([task] * 4, notes, on=None)
    assert passage > max(foreign, nothing) + 1
    assert perfect > max(foreign, nothing) + 1


@pytest.fixture
def short(fields: dict[str, Any]) -> dict[str, Any]:
    rest = {"ladder": fields["ladder"] | {"rungs": ["no_edit"]}}
    return fields | rest | {"edits": {"per_task": 4, "max_new_tokens": 24}}


def rows_of(directory: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(directory / "journal.db") as db:
        return db.execute(query).fetchall()


def test_a_run_tries_what_the_proxy_leaves(short: dict[str, Any], tmp_path: Path) -> None:
    settings = make_settings(short | {"reward": {"proxy": "in_context", "proxy_keep": 1, "pilot": 0}})
    (row,) = run_experiment(settings, tmp_path / "run")["rounds"][1:]
    ((values,),) = rows_of(tmp_path / "run", "select json_extract(data, '$.proxy') from chunks where key = 'round-1/proxy'")
    assert values
    tried = rows_of(
        tmp_path / "run", "select edit_id from outcomes where round = 1 and stage = 'apply' and edit_id like 'train%'"
    )
    written = 2 * 4
    assert row["n_screened"] + len(tried) == written
    ranked = json.loads(values)
    for task in {edit_id.split("#")[0] for edit_id in ranked}:
        own = {edit_id: value for edit_id, value in ranked.items() if edit_id.startswith(f"{task}#")}
        assert [edit_id for (edit_id,) in tried if edit_id in own] == [max(own, key=own.__getitem__)]
    assert row["n_edits"] == len(tried) < written  # what was not tried is neither a failure nor unusable
    assert row["failures"] == []
    assert "4 edits (in_context leaves 1) = 2 inner loops" in "\n".join(plan(settings)["lines"])


@pytest.mark.parametrize("name", ["reinforce", "grpo", "ppo"])
def test_policy_gradients_refuse_a_selection_of_their_edits(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} would learn from them as if"):
        make_settings({"reward": {"proxy": "in_context"}, "algorithm": {"name": name}})
