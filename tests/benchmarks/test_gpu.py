"""The GPU benchmark runs, at a tiny size, where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_it_runs_without_a_gpu_and_its_ratios_are_quotients(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main(["--json", str(file), "--ks", "1", "2", "--repeats", "1"]) == 0
    made = json.loads(file.read_text())
    assert made["engine"].keys() == {"1", "2"}
    fastest = min(row["seconds_per_edit"] for row in made["engine"].values())
    for name in ("trainer", "lean"):
        assert made["ratios"][name] == pytest.approx(made["baselines"][name] / fastest)
    assert all(0 < row["peak_share"] < 1 and row["peak_gib"] > 0 for row in made["engine"].values())
    assert made["decoded_tokens_per_second"] > 0
