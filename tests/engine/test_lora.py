from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_updates import beside, prompts, strong

from benchmarks.peft_reference import add_lora, load_base
from conftest import FAMILIES
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def adapter(llama: TorchEngine) -> LoraAdapter:
    return strong(initial_adapter(llama.layout, 4, 6.0, 1))


@pytest.mark.parametrize("targets", ["all-linear", "all-linear@1:"])
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_loads_an_export_and_computes_the_same(
    targets: str, family: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = TorchEngine.load(str(checkpoints[family]), device="cpu", targets=targets)
    made = strong(initial_adapter(engine.layout, 5, 7.5, 3))
    made.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(checkpoints[family])
    model = PeftModel.from_pretrained(base, tmp_path)
    assert sum(hasattr(m, "lora_A") for m in model.modules()) == len(made.tensors)
    for prompt in prompts(1, (5, 13)):
        ids = torch.tensor([prompt])
        with torch.no_grad(), beside(engine, made):
            ours = engine.model(input_ids=ids).logits
            torch.testing.assert_close(model(input_ids=ids).logits, ours, rtol=1e-4, atol=1e-4)
        out = model.generate(input_ids=ids, do_sample=False, max_new_tokens=8, pad_token_id=0)
        assert engine.answer([[prompt]], on=made, max_new_tokens=8) == [[engine.decode(out[0, len(prompt) :].tolist())]]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_survives_saving_bit_by_bit(family: str, engines: dict[str, TorchEngine], tmp_path: Path) -> None:
    engine = engines[family]
    made = strong(initial_adapter(engine.layout, 3, 4.5, 2))
    made.save(tmp_path / "new" / "place")
    loaded = engine.load_adapter(tmp_path / "new" / "place")
    assert loaded.sha256 == made.sha256
    assert replace(loaded, tensors={}) == replace(made, tensors={})
    assert engine.bank([loaded]).adapter(0).sha256 == made.sha256


def test_peft_writes_adapters_that_load_here(checkpoints: dict[str, Path], llama: TorchEngine, tmp_path: Path) -> None:
    start = strong(initial_adapter(llama.layout, 4, 6.0, 1))
    add_lora(load_base(checkpoints["llama"]), start).save_pretrained(tmp_path)
    assert llama.load_adapter(tmp_path).sha256 == start.sha256


def test_saving_twice_gives_the_same_bytes(adapter: LoraAdapter, tmp_path: Path) -> None:
    for name in ("a", "b"):
        adapter.save(tmp_path / name)
    for file in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_hash_sees_tensors_names_rank_and_alpha(adapter: LoraAdapter) -> None:
    path, (a, b) = next(iter(adapter.tensors.items()))
    rest = {name: pair for name, pair in adapter.tensors.items() if name != path}
    others = [
        replace(adapter, alpha=6.5),
        replace(adapter, tensors={**rest, path: (a, b + 1e-6)}),
        replace(adapter, tensors={**rest, path + "x": (a, b)}),
    ]
    assert len({adapter.sha256, *(other.sha256 for other in others)}) == 4
    assert replace(adapter, tensors=dict(reversed(adapter.tensors.items()))).sha256 == adapter.sha256


def test_norm_ratio_is_the_largest_relative_change(adapter: LoraAdapter, llama: TorchEngine) -> None:
    ratios = [
        float((adapter.scale * b @ a).norm() / llama.model.get_submodule(path).weight.norm())
        for path, (a, b) in adapter.tensors.items()
    ]
    assert llama.norm_ratio(adapter) == pytest.approx(max(ratios), rel=1e-5)
    assert llama.norm_ratio(initial_adapter(llama.layout, 4, 6.0, 1)) == 0.0


def test_initial_adapters_depend_on_their_seed_alone(llama: TorchEngine) -> None:
    first = initial_adapter(llama.layout, 4, 6.0, 1)
    torch.manual_seed(99)
    assert initial_adapter(llama.layout, 4, 6.0, 1).sha256 == first.sha256
    assert initial_adapter(llama.layout, 4, 6.0, 2).sha256 != first.sha256
    for a, b in first.tensors.values():
        assert not b.any()
        assert 0.8 * a.shape[1] ** -0.5 < float(a.abs().max()) <= a.shape[1] ** -0.5


def test_a_missing_or_damaged_adapter_is_refused(adapter: LoraAdapter, llama: TorchEngine, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapter_config"):
        LoraAdapter.load(tmp_path)
    adapter.save(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="safetensors"):
        LoraAdapter.load(tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        llama.load_adapter(tmp_path)
