"""The two presets are compared on the same passages and edits, and what is told is what their runs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipes, tables
from selfedit.config import Settings


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same runs with short edits, inner loops of one step and less to fill up to."""
    plan = recipes.settings_for

    def short(recipe: str, seed: int, passages: int) -> Settings:
        settings = plan(recipe, seed, passages)
        pad_to = min(settings.inner.pad_to, 256)
        small = {
            "edits": {"max_new_tokens": 16},
            "inner": {"epochs": 1, "pad_to": pad_to},
            "tasks": {"dev": 1, "probes_per_kind": 1},
            "model": {"dtype": "fp32"},
        }
        changed = {name: getattr(settings, name).model_copy(update=fields) for name, fields in small.items()}
        return settings.model_copy(update=changed)

    monkeypatch.setattr(recipes, "settings_for", short)


@pytest.mark.usefixtures("_quick")
def test_only_the_padding_differs(tmp_path: Path) -> None:
    file = tmp_path / "recipes.json"
    assert recipes.main(["--json", str(file), "--out", str(tmp_path / "runs"), "--passages", "2"]) == 0
    made = json.loads(file.read_text())
    rows: dict[str, dict[str, Any]] = {row["rung"]: row for row in made["recipes"]}
    assert list(rows) == ["no_edit", "passage_only", "base_edits", "perfect_edits"]
    assert rows["no_edit"]["difference"] == 0
    for name in ("passage_only", "base_edits", "perfect_edits"):
        clean, paper = rows[name]["clean"], rows[name]["paper"]
        assert paper["steps"] == clean["steps"] > 0  # the same sequences
        assert paper["trained_tokens"] == pytest.approx(256 * paper["steps"])
        assert clean["trained_tokens"] < paper["trained_tokens"] / 2
        assert rows[name]["difference"] == pytest.approx(paper["accuracy"] - clean["accuracy"])
    assert len(tables.recipes(made)) == 5
