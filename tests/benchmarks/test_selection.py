"""The benchmark of racing runs, and its numbers are what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import selection
from selfedit.config import Settings, make_settings


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_it_races_and_searches_in_full_on_the_same_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(fields: dict[str, Any]) -> Settings:
        brief = {"edits": {"max_new_tokens": 40}, "inner": {"steps": 8}, "reward": {"max_answer_tokens": 6}}
        return make_settings(fields | brief)

    monkeypatch.setattr(selection, "make_settings", short)
    file = tmp_path / "selection.json"
    arguments = ["--json", str(file), "--tasks", "2", "--edits", "2", "--loops", "2", "--seed", "5", "--marks", "0.5"]
    assert selection.main(arguments) == 0
    made = json.loads(file.read_text())
    seconds, loops = made["seconds"], made["inner_loops"]
    assert made["n_tasks"] == 2
    assert loops["full"] == 3 * 4
    assert 0 < loops["raced"] <= loops["full"] + 0.5 * 4  # at worst the screening, and then everything
    assert made["trainer_loops_timed"] >= 2
    assert made["speedup"] == pytest.approx(seconds["trainer_per_loop"] * loops["full"] / seconds["raced_search"])
    assert made["difference"]["difference"] == pytest.approx(made["accuracy_raced"] - made["accuracy_full"])
    assert 0 <= made["agreement"] <= 1
