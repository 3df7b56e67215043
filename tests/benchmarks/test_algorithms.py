"""The comparison of algorithms runs, goes on where it was stopped, and its numbers are those of its runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import algorithms


@pytest.fixture
def _quick(shorten: Callable[..., None], tiny_world_model: str) -> None:
    model = {"path": tiny_world_model, "templates": "world", "targets": "all-linear", "dtype": "fp32"}
    shorten(algorithms, inner={"steps": 1}, guards={"anchors": 1}, algorithm={"epochs": 1}, model=model)


@pytest.mark.usefixtures("_quick")
def test_it_compares_on_equal_terms_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "algorithms.json"
    few = ["--rounds", "2", "--tasks", "2", "--loops", "8", "--seeds", "1", "--arms", "paper", "reinforce"]
    chart = tmp_path / "algorithms.svg"
    arguments = ["--json", str(file), "--chart", str(chart), "--out", str(tmp_path / "runs"), *few]
    assert algorithms.main(arguments) == 0
    made = json.loads(file.read_text())
    rows = {arm: found["rounds"] for arm, found in made["algorithms"].items()}
    assert [row["round"] for row in rows["paper"]] == [0, 1, 2]
    assert rows["paper"][0]["accuracy"] == rows["reinforce"][0]["accuracy"]  # the same base on the same passages
    assert made["winner"] == "reinforce"
    assert "reinforce" in chart.read_text()
    assert made["reliability"]["paper"] == made["algorithms"]["paper"]["reliability"]
    gained = rows["reinforce"][-1]["accuracy"] - rows["paper"][-1]["accuracy"]
    assert made["against_paper"]["reinforce"]["difference"] == pytest.approx(gained)
    assert algorithms.main([*arguments, "--test", "3"]) == 0  # finished runs are looked up
    again = json.loads(file.read_text())
    test = again.pop("test")
    assert again == made
    assert len((tmp_path / "runs" / "test-ledger.jsonl").read_text().splitlines()) == 2  # one look each
    looked = json.loads((tmp_path / "runs" / "reinforce-test-seed-1" / "summary.json").read_text())
    assert [row["accuracy"] for row in test["rounds"]["reinforce"]] == [row["accuracy"] for row in looked["ladder"]]
    assert test["by_seed"]["reinforce"] == [[row["accuracy"] for row in looked["ladder"]]]
    assert len(looked["per_task"]["round_2"]) == test["tasks"] == 3
    assert not set(looked["per_task"]["round_2"]) & set(
        json.loads((tmp_path / "runs" / "reinforce-dev-seed-1" / "summary.json").read_text())["per_task"]["round_2"]
    )
    gained = test["rounds"]["reinforce"][1]["accuracy"] - test["rounds"]["paper"][1]["accuracy"]
    assert test["difference"] == pytest.approx(gained)


def test_every_arm_spends_about_the_same_on_inner_loops() -> None:
    for arm in algorithms.ARMS:
        settings = algorithms.settings_for(arm, 1, rounds=10, tasks=60)
        loops = settings.tasks.per_round * settings.edits.per_task * settings.inner.seeds
        assert loops == 120
