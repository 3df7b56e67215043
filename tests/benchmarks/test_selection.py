"""The benchmark of racing runs, and its numbers are what they claim to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import selection


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_it_races_and_searches_in_full_on_the_same_edits(tmp_path: Path) -> None:
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
