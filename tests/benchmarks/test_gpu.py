"""The GPU benchmark runs, at a tiny size, where there is no GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from selfedit.config import AtOnce
from selfedit.engine.adapters.adapter_context import AdapterContext
from selfedit.engine.adapters.lora import Bank, LoraAdapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training.cohort import Cohort
from selfedit.errors import OutOfMemoryError

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
CPU = torch.device("cpu")


def test_it_runs_without_a_gpu_and_its_ratios_are_quotients(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert gpu.main(["--json", str(file), "--ks", "1", "2", "--repeats", "1"]) == 0
    made = json.loads(file.read_text())
    assert made["engine"].keys() == {"1", "2"}
    raw = made["raw_seconds"]
    assert raw.keys() == {"trainer", "lean", "engine 1", "engine 2"}
    fastest = raw[f"engine {made['best_k']}"]
    for name in ("trainer", "lean"):
        assert made["ratios"][name] == pytest.approx(raw[name][0] / fastest[0])
        assert made["baselines"][name] == raw[name][0]
    assert fastest[0] == min(row["seconds_per_edit"] for row in made["engine"].values())
    assert all(0 < row["peak_share"] < 1 and row["peak_gib"] > 0 for row in made["engine"].values())
    assert made["decoded_tokens_per_second"] > 0
    assert made["max_rel_error"] < 1e-3
    assert made["tokens_equal"] == 1.0


def test_what_is_stopped_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, turns = tmp_path / "gpu.json", iter(range(3))

    def interrupted(work: Callable[[], object], edits: int, device: torch.device) -> float:
        if next(turns, None) is None:
            raise KeyboardInterrupt
        work()
        return 1.0

    monkeypatch.setattr(gpu, "seconds_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--json", str(file), "--ks", "1", "2", "--repeats", "2"])
    made = json.loads(file.read_text())
    assert made["raw_seconds"] == {"trainer": [1.0], "lean": [1.0], "engine 1": [1.0], "engine 2": []}
    assert made["tokens_equal"] == 1.0
    assert made["peak_gib"].keys() == {"1", "2"}


def test_an_engine_that_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Bank.adapter

    def halved(self: Bank, member: int) -> LoraAdapter:
        found = whole(self, member)
        return LoraAdapter({p: (a, b / 2) for p, (a, b) in found.tensors.items()}, found.rank, found.alpha)

    monkeypatch.setattr(Bank, "adapter", halved)
    answer = TorchEngine.answer
    monkeypatch.setattr(TorchEngine, "answer", lambda *a, **k: [[f"{t}!" for t in row] for row in answer(*a, **k)])
    errors, equal = gpu.agreement(CPU)
    assert errors["engine"] == pytest.approx(0.5, rel=1e-2)
    assert errors["trainer"] < 1e-3
    assert equal == 0


def test_the_first_number_of_edits_that_does_not_fit_ends_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Cohort.step

    def limited(cohort: Cohort, place: AdapterContext) -> None:
        if cohort.active > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(cohort, place)

    monkeypatch.setattr(Cohort, "step", limited)
    model = gpu.build(gpu.TINY, CPU, torch.float32)
    tokenizer = gpu.AutoTokenizer.from_pretrained(gpu.EMBEDDED)
    engines = {k: TorchEngine(model, tokenizer, at_once=AtOnce(members=k)) for k in (1, 2, 4, 8)}
    cases = [gpu.make_case(k, 64, 1) for k in range(8)]
    room = 2
    assert gpu.fitting(engines, cases, CPU).keys() == {1, 2}
    room = 0
    with pytest.raises(OutOfMemoryError):
        gpu.fitting(engines, cases, CPU)
