"""Linear modules that compute in a way of their own, as quantised ones do, are adapted exactly, with a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_updates import beside, mixed_updates, prompts, strong
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.peft_reference import peft_fit
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError
from selfedit.evaluation.peft_parity import distance

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


class Rounded(nn.Linear):
    """A product with another matrix than its ``weight`` says."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.round(decimals=1), self.bias)


@pytest.fixture
def rounded(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> TorchEngine:
    """A llama with such modules in its feed-forward layers, however it is loaded."""
    load = AutoModelForCausalLM.from_pretrained

    def loaded(*args: Any, **settings: Any) -> Any:
        out = load(*args, **settings)
        for name, module in (out[0] if isinstance(out, tuple) else out).named_modules():
            if ".mlp." in name and isinstance(module, nn.Linear):
                module.__class__ = Rounded
        return out

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
    with pytest.warns(UserWarning, match=r"LlamaForCausalLM.*Rounded.*slower") as warned:
        engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu")
    assert len(warned) == 1
    return engine


def test_members_get_what_peft_gives_each_alone(rounded: TorchEngine, checkpoints: dict[str, Path]) -> None:
    updates, before = mixed_updates(), rounded.base_sha256()
    bank = rounded.apply(updates, on=None)
    references = []
    for k, one in enumerate(updates):
        start = initial_adapter(rounded.layout, one.rank, one.alpha, one.seed)
        reference, losses = peft_fit(checkpoints["llama"], one, start)
        references.append(reference)
        assert distance(bank.adapter(k), reference) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-5)
    asked = [prompts(k, (3, 9)) for k in range(len(updates))]
    theirs = rounded.answer(asked, on=None, members=rounded.bank(references), max_new_tokens=8)
    assert rounded.answer(asked, on=None, members=bank, max_new_tokens=8) == theirs
    assert rounded.base_sha256() == before


def test_a_policy_underneath_is_added(rounded: TorchEngine, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel

    policy = strong(initial_adapter(rounded.layout, 4, 6.0, 1))
    policy.save(tmp_path)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoints["llama"]), tmp_path).eval()
    ids = torch.tensor(prompts(1, (9,)))
    with torch.no_grad(), beside(rounded, policy):
        torch.testing.assert_close(rounded.model(input_ids=ids).logits, theirs(input_ids=ids).logits)


def test_such_a_module_is_not_merged(rounded: TorchEngine, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mlp.*Rounded"):
        rounded.merge(strong(initial_adapter(rounded.layout, 4, 6.0, 1)), tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_forward_that_somebody_hung_on_a_module_is_used_and_kept(checkpoints: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    tokenizer = TorchEngine.load(str(checkpoints["llama"]), device="cpu").tokenizer
    module = model.get_submodule("model.layers.0.mlp.up_proj")
    plain, calls = module.forward, []

    def hung(x: Tensor) -> Tensor:
        calls.append(len(x))
        return 2 * plain(x)

    module.forward = hung
    with pytest.warns(UserWarning, match="Linear computes in a way of its own"):
        engine = TorchEngine(model, tokenizer)
    calls.clear()
    engine.apply(mixed_updates()[:1], on=None)
    assert calls
    assert module.forward is hung
