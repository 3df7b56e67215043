from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_updates import mixed_updates, strong, update

from conftest import FAMILIES
from selfedit.config import AtOnce
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training import fit
from selfedit.engine.training.upper import Upper, first_adapted
from selfedit.evaluation.peft_parity import distance
from selfedit.types import TrainSequence


@pytest.mark.parametrize("family", FAMILIES)
def test_reusing_the_lower_layers_changes_nothing(
    family: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine.load(str(checkpoints[family]), device="cpu", targets="all-linear@1:")
    policy = strong(engine.apply([update(7, targets="all-linear")], on=None).adapter(0), size=0.05)
    assert first_adapted(engine.body, engine.layout) == 1
    updates = mixed_updates()
    reused = engine.apply(updates, on=policy)
    monkeypatch.setattr(fit, "first_adapted", lambda *_: 0)
    plain = engine.apply(updates, on=policy)
    for k in range(len(updates)):
        assert distance(reused.adapter(k), plain.adapter(k)) <= 1e-4
        assert reused.losses[k] == pytest.approx(plain.losses[k], rel=1e-5)
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in engine.model.modules())


def test_each_sequence_goes_through_the_lower_layers_once(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", targets="all-linear@1:", at_once=AtOnce(members=2))
    seen: list[TrainSequence] = []
    lower = Upper.lower
    monkeypatch.setattr(Upper, "lower", lambda self, given: seen.extend(given) or lower(self, given))
    updates = [update(1, steps=20), update(2, steps=3), update(3, steps=9)]
    engine.training(updates, on=None).run()
    proof = 2
    assert len(seen) == proof + sum(len(one.sequences) for one in updates)
    lowest = engine.model.get_submodule("model.layers.0.self_attn.q_proj")
    calls: list[torch.Size] = []
    handle = lowest.register_forward_pre_hook(lambda _module, args: calls.append(args[0].shape))
    engine.training(updates, on=None).run()
    handle.remove()
    assert len(calls) <= 3 + len(updates)  # the proof's, and one a member; the steps are 32


def test_no_reuse_where_the_first_layer_or_something_outside_the_layers_is_adapted(llama: TorchEngine) -> None:
    assert first_adapted(llama.body, llama.layout) == 0


def test_a_model_that_cannot_be_cut_is_trained_whole(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", targets="all-linear@1:")
    monkeypatch.setattr(Upper, "lower", lambda self, given: [torch.zeros(len(s.ids), 32) for s in given])
    assert first_adapted(engine.body, engine.layout) == 0
