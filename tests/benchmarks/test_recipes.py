"""The two presets are compared on the same passages and edits, and what is told is what their runs say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipes, tables
from journals import journal_of


def test_only_the_padding_differs(shorten: Callable[..., None], tiny_world_model: str, tmp_path: Path) -> None:
    model = {"path": tiny_world_model, "templates": "world", "dtype": "fp32"}
    shorten(recipes, inner={"epochs": 1}, model=model)
    file = tmp_path / "recipes.json"
    assert recipes.main(["--json", str(file), "--out", str(tmp_path / "runs"), "--passages", "2"]) == 0
    made = json.loads(file.read_text())
    rows: dict[str, dict[str, Any]] = {row["rung"]: row for row in made["recipes"]}
    assert list(rows) == ["no_edit", "passage_only", "base_edits", "perfect_edits"]
    assert rows["no_edit"]["difference"] == 0
    for name in ("passage_only", "base_edits", "perfect_edits"):
        clean, paper = rows[name]["clean"], rows[name]["paper"]
        assert paper["steps"] == clean["steps"] > 0  # the same sequences
        assert paper["trained_tokens"] == pytest.approx(512 * paper["steps"])
        assert clean["trained_tokens"] < paper["trained_tokens"] / 2
        assert rows[name]["difference"] == pytest.approx(paper["accuracy"] - clean["accuracy"])
    assert len(tables.recipes(made)) == 5
    texts = [journal_of(tmp_path / "runs" / f"{name}-seed-16") for name in recipes.RECIPES]
    clean, paper = ({key: data for key, _, _, data in rows if "/propose/" in key} for rows in texts)
    assert clean == paper  # the same edits
    assert clean
