"""The documents' tables are those of the published results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sample_summary import arm, full, minimal, minimal_summary

from benchmarks import tables
from selfedit.errors import RunError
from selfedit.evaluation.pooled import pool

ROW = {"accuracy": 0.5, "low": 0.25, "high": 0.75}
RUNG = {
    **minimal_summary()["ladder"][0],
    **ROW,
    "rung": "base_edits",
    "steps": 12,
    "trained_tokens": 1234,
    "n_tasks": 8,
}


def test_the_documents_of_the_project_are_up_to_date() -> None:
    assert tables.main(["--check"]) == 0


def test_a_table_that_is_not_what_the_results_hold_is_found_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "x.json").write_text(json.dumps(minimal_summary() | {"ladder": [RUNG]}))
    page = tmp_path / "docs" / "page.md"
    page.write_text("Before\n<!-- table ladder x.json -->\n| old |\n<!-- end -->\nAfter\n")
    assert tables.main(["--root", str(tmp_path), "--check"]) == 1
    assert "docs/page.md" in capsys.readouterr().out
    assert "| old |" in page.read_text()
    assert tables.main(["--root", str(tmp_path)]) == 0
    assert page.read_text().splitlines() == [
        "Before",
        "<!-- table ladder x.json -->",
        "| prepared with | accuracy, % [95 %] | steps per passage | tokens per passage | passages |",
        "|---|---|---|---|---|",
        "| self-edits, before RL | 50.0 [25.0, 75.0] | 12 | 1,234 | 8 |",
        "<!-- end -->",
        "After",
    ]
    assert tables.main(["--root", str(tmp_path), "--check"]) == 0
    shutil.rmtree(tmp_path / "docs" / "results")
    with pytest.raises(RunError, match=r"x\.json: not there"):
        tables.main(["--root", str(tmp_path), "--check"])


def test_every_kind_of_table_reads_its_results() -> None:
    matrix = {"1": [0.75], "2": [0.25, 0.5]}
    stream = full(arms={"plain": arm("sum", 0.5, 0.25, matrix=matrix), "apart": arm("routed", 0.5, 0.25, matrix=matrix)})
    assert [row[0] for row in tables.merged(stream)[1:]] == ["`plain`"]
    assert [row[0] for row in tables.routed(stream)[1:]] == ["`apart`"]
    assert tables.matrix(stream)[1:3] == [
        ("`plain`", "after its own edit", "75.0 %", "50.0 %"),
        ("`plain`", "at the end", "25.0 %", "50.0 %"),
    ]
    seeds = [
        minimal(seed=seed, ladder=[RUNG | {"accuracy": value}], per_task={"base_edits": {"a": value}})
        for seed, value in ((1, 0.25), (2, 0.75))
    ]
    assert tables.pooled(pool(seeds))[1:] == [("self-edits, before RL", "50.0 [25.0, 75.0]", "25.0, 75.0", "16")]
    pair = {"a": "round_2", "b": "base_edits", "difference": 0.05, "low": -0.01, "high": 0.11}
    assert tables.paired(minimal(paired=[pair]))[1][1] == "+5.0 [-1.0, +11.0]"
    ungraded = RUNG | {"accuracy": None, "low": None, "high": None}
    assert tables.ladder(minimal(ladder=[ungraded]))[1][1] == "not graded"
    found = {"rounds": [{"round": 0, **ROW}, {"round": 10, **ROW}], "seconds": 600}
    made = {"algorithms": {"paper": found, "grpo": found}, "against_paper": {"grpo": pair}}
    assert tables.algorithms(made)[1:] == [
        ("`paper`", "50.0 [25.0, 75.0]", "50.0 [25.0, 75.0]", "", "10"),
        ("`grpo`", "50.0 [25.0, 75.0]", "50.0 [25.0, 75.0]", "+5.0 [-1.0, +11.0]", "10"),
    ]
