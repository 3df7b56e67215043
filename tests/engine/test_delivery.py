"""After a fit, a number for each member says how far it moved the outputs; 0.0 means not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from made_updates import mixed_updates, strong, update
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from selfedit.config import AtOnce
from selfedit.engine.adapters.adapter_context import AdapterContext
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.types import TrainSequence

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
NOTHING = 1e-30  # a learning rate whose weights vanish in every sum


def target_logprobs(model: nn.Module, sequence: TrainSequence) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([sequence.ids])).logits[0, :-1]
    of_targets = torch.log_softmax(logits, -1)[range(len(sequence.ids) - 1), sequence.ids[1:]]
    return of_targets[torch.tensor(sequence.mask[1:])]


def test_the_shift_is_the_exports_largest_change_in_peft(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    engine, updates = engines[family], mixed_updates()
    bank = engine.apply(updates, on=None)
    for k, one in enumerate(updates):
        shortest = min(one.sequences, key=lambda s: len(s.ids))
        bank.adapter(k).save(tmp_path / str(k))
        bare = AutoModelForCausalLM.from_pretrained(checkpoints[family]).eval()
        before = target_logprobs(bare, shortest)
        after = target_logprobs(PeftModel.from_pretrained(bare, tmp_path / str(k)).eval(), shortest)
        assert bank.shift[k] == pytest.approx(float((after - before).abs().max()), rel=1e-2, abs=1e-5)
        assert bank.shift[k] > 1e-3


def test_an_adapter_too_small_to_change_a_number_has_no_shift(llama: TorchEngine) -> None:
    bank = llama.apply([update(1), update(2, lr=NOTHING), update(3)], on=None)
    assert bank.flat[1].any()
    assert bank.shift[1] == 0.0
    assert min(bank.shift[0], bank.shift[2]) > 1e-3


def test_members_that_are_not_bound_have_no_shift(llama: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = AdapterContext.bind

    def only_in_training(self: AdapterContext, views: object, scale: Tensor, grads: Mapping[str, object] | None = None) -> None:
        if grads is not None:
            bind(self, views, scale, grads)  # type: ignore[arg-type]

    monkeypatch.setattr(AdapterContext, "bind", only_in_training)
    assert llama.apply(mixed_updates(), on=None).shift == [0.0] * 4


def test_a_failed_member_has_no_shift(llama: TorchEngine) -> None:
    bank = llama.apply([update(1), update(2, lr=1e30)], on=None)
    assert list(bank.failed) == [1]
    assert bank.shift[0] > 1e-3
    assert bank.shift[1] == 0.0


def test_the_policy_is_underneath_with_and_without_the_member(llama: TorchEngine) -> None:
    policy = strong(initial_adapter(llama.layout, 4, 6.0, 1))
    one = update(1)
    shortest = min(one.sequences, key=lambda s: len(s.ids))
    bank = llama.apply([one, update(2, lr=NOTHING)], on=policy)
    pair = (shortest.ids[:1], shortest.ids[1:])
    ((after,), _), ((before,),) = llama.score([[pair], []], on=policy, members=bank), llama.score([[pair]], on=policy)
    change = (torch.tensor(after.logprobs) - torch.tensor(before.logprobs))[torch.tensor(shortest.mask[1:])].abs().max()
    assert bank.shift[0] == pytest.approx(float(change), rel=1e-3)
    assert bank.shift[1] == 0.0


def test_members_in_several_cohorts_get_each_their_own_shift(checkpoints: dict[str, Path], llama: TorchEngine) -> None:
    small = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=2))
    updates = [*mixed_updates(), update(9, steps=2)]
    torch.set_num_threads(2)
    try:
        shifts = small.apply(updates, on=None).shift
    finally:
        torch.set_num_threads(1)
    assert shifts == pytest.approx(llama.apply(updates, on=None).shift, rel=1e-2)
