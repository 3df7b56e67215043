"""A proxy ranks edits before any inner loop; what it leaves out is not tried, and nothing is made of that."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import JudgeServer

from selfedit.config import make_settings
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import load_engine, run_experiment
from selfedit.evaluation.planning import plan
from selfedit.rewards.outcomes import Rewarder
from selfedit.rewards.proxy import to_be_tried
from selfedit.tasks.world.source import draw_tasks
from selfedit.types import Completion, Edit

WRITTEN = Completion((1,), (2,), (0.0,), "text", True)


@given(st.lists(st.lists(st.none() | st.integers(-3, 3), max_size=6), max_size=4), st.integers(1, 4))
def test_the_best_of_each_context_are_tried_and_those_without_a_value(
    groups: list[list[int | None]], keep: int
) -> None:
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
    rewarder = Rewarder(load_engine(settings), settings)
    task, other = draw_tasks("dev", ("e1",), 2, seed=2)
    notes = [task.text, task.gold_edit, other.gold_edit, "Nothing."]
    passage, perfect, foreign, nothing = rewarder.in_view([task] * 4, notes)
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
    ((values,),) = rows_of(
        tmp_path / "run", "select json_extract(data, '$.proxy') from chunks where key = 'round-1/proxy'"
    )
    assert values
    tried = rows_of(
        tmp_path / "run", "select edit_id from outcomes where round = 1 and stage = 'apply' and edit_id like 'train%'"
    )
    written = 2 * 4
    assert row["n_screened"] + len(tried) == written
    assert row["n_edits"] == len(tried) < written  # what was not tried is neither a failure nor unusable
    assert row["failures"] == []
    assert "4 edits (in_context leaves 1) x" in "\n".join(plan(settings)["lines"])
    assert "= 2 inner loops" in "\n".join(plan(settings)["lines"])


def test_a_judges_marks_rank_and_their_failures_leave_an_edit_in(short: dict[str, Any], tmp_path: Path) -> None:
    with JudgeServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        judge = {"model": "m", "url": server.url, "retries": 0, "cache": str(tmp_path / "judge.db")}
        reward = {"proxy": "rubric", "proxy_keep": 1, "pilot": 0, "judge": judge}
        run_experiment(make_settings(short | {"reward": reward}), tmp_path / "run")
        assert server.asked.total() > 0
        server.shutdown()
    query = "select value ->> 0, value ->> 1 from chunks, json_each(data, '$.proxy') where chunks.key = 'round-1/proxy'"
    marks = dict(rows_of(tmp_path / "run", query))
    assert all(value is None or 4 <= value <= 20 for value in marks.values())
    tried = {
        row[0] for row in rows_of(tmp_path / "run", "select edit_id from outcomes where round = 1 and stage = 'apply'")
    }
    for task in {edit.split("#")[0] for edit in marks}:
        own = {edit: value for edit, value in marks.items() if edit.startswith(f"{task}#") and value is not None}
        best = max(own.values(), default=None)
        assert [own[edit] for edit in own if edit in tried] == ([best] if own else [])


def test_a_rubric_needs_a_judge() -> None:
    with pytest.raises(SettingsError, match=r"proxy = 'rubric' needs reward\.judge\.model"):
        make_settings({"reward": {"proxy": "rubric"}})


@pytest.mark.parametrize("name", ["reinforce", "grpo", "ppo"])
def test_policy_gradients_refuse_a_selection_of_their_edits(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} would learn from them as if"):
        make_settings({"reward": {"proxy": "in_context"}, "algorithm": {"name": name}})
