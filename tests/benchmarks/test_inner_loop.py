"""The benchmark of the inner loop runs, and its numbers are what they claim to be."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import inner_loop

KEYS = {
    "model",
    "loop",
    "parameters",
    "seconds_per_edit",
    "ratios",
    "dtype",
    "max_rel_error",
    "tokens_equal",
    "peak_share",
    "peak_gib",
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_it_measures_a_tiny_model_and_its_ratios_are_quotients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(inner_loop, "matmul_peak", partial(inner_loop.matmul_peak, size=1024, repeats=3))
    file = tmp_path / "made.json"
    elsewhere = {"machine": "another", "threads": 64, "rows": [{"model": "embedded", "loop": "paper"}]}
    file.write_text(json.dumps(elsewhere))
    assert inner_loop.main(["--quick", "--loops", "paper", "--json", str(file)]) == 0
    made = json.loads(file.read_text())
    assert made["machine"]
    assert made["threads"] == 1
    kept, row = made["rows"]
    assert kept == {"model": "embedded", "loop": "paper", "machine": "another", "threads": 64}
    assert (row["machine"], row["threads"]) == (made["machine"], 1)
    assert row.keys() >= KEYS
    assert (row["model"], row["loop"]) == ("tiny", "paper")
    seconds = row["seconds_per_edit"]
    assert seconds["engine"].keys() == {"1", "2"}
    fastest = min(seconds["engine"].values())
    for name in ("seal", "seal_2048", "trainer", "lean"):
        assert row["ratios"][name] == pytest.approx(seconds[name] / fastest)
    assert row["max_rel_error"] < 1e-3
    assert row["tokens_equal"] == 1.0
    assert 0 < row["peak_share"] < 1
    assert 0.1 < row["peak_gib"] < 16
    assert "tiny" in capsys.readouterr().out


def test_a_row_of_the_file_stays_until_it_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(source: Path, model: str, loop: str, plan: inner_loop.Plan) -> dict[str, Any]:
        if loop == "default":
            raise KeyboardInterrupt
        return {"model": model, "loop": loop, "new": True}

    file = tmp_path / "made.json"
    old = [{"model": "tiny", "loop": loop} for loop in ("default", "paper")]
    file.write_text(json.dumps({"machine": "another", "threads": 64, "rows": old}))
    monkeypatch.setattr(inner_loop, "measure", measure)
    monkeypatch.setattr(inner_loop, "table", len)
    assert not inner_loop.run(["tiny"], ["paper", "default"], inner_loop.QUICK, file)
    kept, new = json.loads(file.read_text())["rows"]
    assert (kept["loop"], kept["machine"], kept.get("new")) == ("default", "another", None)
    assert (new["loop"], new["new"]) == ("paper", True)
    assert "bf16 is left out" in json.loads(file.read_text())["notes"]
