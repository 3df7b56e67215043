"""Several adapters as one: sums against PEFT's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_updates import prompts, strong
from peft import PeftModel
from transformers import AutoModelForCausalLM

from conftest import SOME
from selfedit.engine.adapters.arithmetic import combined
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError, SettingsError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def changes(adapter: LoraAdapter) -> dict[str, torch.Tensor]:
    return {path: adapter.scale * (b @ a) for path, (a, b) in adapter.tensors.items()}


def made(seed: int, rank: int, alpha: float, d_in: int = 6, d_out: int = 9, names: str = "xy") -> LoraAdapter:
    g = torch.Generator().manual_seed(seed)
    tensors = {n: (torch.randn(rank, d_in, generator=g), torch.randn(d_out, rank, generator=g)) for n in names}
    return LoraAdapter(tensors, rank, alpha, tuple(names))


@settings(deadline=None, max_examples=60)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 99), st.integers(1, 5), st.sampled_from(["x", "y", "xy"]), st.floats(-2, 2)),
        min_size=1,
        max_size=6,
    ),
    shape=st.sampled_from([(6, 9), (9, 6), (4, 4)]),
)
def test_a_sum_changes_what_its_parts_change_and_never_needs_more_than_a_full_matrix(parts, shape):
    adapters = [made(seed, rank, 3.0, *shape, names) for seed, rank, names, _ in parts]
    weights = [weight for *_, weight in parts]
    total = combined(adapters, weights)
    assert total.rank == total.alpha <= min(shape)
    found = changes(total)
    for path in {name for adapter in adapters for name in adapter.tensors}:
        wanted = sum(w * changes(a)[path] for a, w in zip(adapters, weights, strict=True) if path in a.tensors)
        torch.testing.assert_close(found[path], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", SOME)
def test_a_sum_answers_as_peft_does_with_both_adapters(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    engine, asked = engines[family], prompts(3, (5, 20))
    two = [strong(initial_adapter(engine.layout, rank, 6.0, rank)) for rank in (2, 3)]
    total = engine.combine(two, [1.0, 0.5])
    theirs = AutoModelForCausalLM.from_pretrained(checkpoints[family])
    for i, adapter in enumerate(two):
        adapter.save(tmp_path / str(i))
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "0", adapter_name="a")
    theirs.load_adapter(tmp_path / "1", adapter_name="b")
    theirs.add_weighted_adapter(["a", "b"], [1.0, 0.5], "both", combination_type="cat")
    theirs.set_adapter("both")
    theirs.eval()
    total.save(tmp_path / "total")
    ours = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoints[family]), tmp_path / "total").eval()
    for prompt in asked:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            torch.testing.assert_close(ours(input_ids=ids).logits, theirs(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    underneath = engine.answer([asked], on=total, max_new_tokens=6)
    assert underneath == engine.answer([asked], on=None, members=engine.bank([total]), max_new_tokens=6)


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(SettingsError, match="0 adapters"):
        combined([], [])
    with pytest.raises(SettingsError, match="1 adapters with 2 weights"):
        combined([made(0, 2, 2.0)], [1.0, 1.0])
    with pytest.raises(ModelError, match="different widths"):
        combined([made(0, 2, 2.0), made(0, 2, 2.0, d_in=7)], [1.0, 1.0])
