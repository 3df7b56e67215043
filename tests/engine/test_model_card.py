"""An exported adapter's card: a header the hub accepts, and what it takes to load the adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from made_updates import strong

from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.torch_engine import TorchEngine


@pytest.fixture
def adapter(llama: TorchEngine) -> LoraAdapter:
    return strong(initial_adapter(llama.layout, 4, 6.5, 1))


def card_of(adapter: LoraAdapter, directory: Path) -> ModelCard:
    adapter.save(directory)
    return ModelCard.load(directory / "README.md")


def header(card: ModelCard) -> dict[str, Any]:
    return card.data.to_dict()


def test_the_card_says_what_the_adapter_is(adapter: LoraAdapter, tmp_path: Path) -> None:
    card = card_of(replace(adapter, base="org/some-model"), tmp_path)
    assert header(card) == {
        "base_model": "org/some-model",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "selfedit"],
    }
    for said in ("`org/some-model`", "| rank | 4 |", "| alpha | 6.5 |", "`q_proj`", adapter.sha256):
        assert said in card.text
    assert "AutoModelForCausalLM.from_pretrained('org/some-model')" in card.text


@pytest.mark.parametrize("base", ["/models/my base", "../base", "a/b/c", "C:\\models", "", "evil\nlicense: mit"])
def test_a_base_that_is_no_hub_id_stays_out_of_the_header(base: str, adapter: LoraAdapter, tmp_path: Path) -> None:
    card = card_of(replace(adapter, base=base), tmp_path)
    assert "base_model" not in header(card)
    assert "license" not in header(card)
    assert "from_pretrained('the/base')" in card.text
    assert (base or "not recorded") in card.text


def test_a_local_directory_that_looks_like_a_hub_id_stays_out_of_the_header(
    adapter: LoraAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert header(card_of(replace(adapter, base="models/base"), tmp_path / "a"))["base_model"] == "models/base"
    (tmp_path / "models" / "base").mkdir(parents=True)
    assert "base_model" not in header(card_of(replace(adapter, base="models/base"), tmp_path / "b"))


@pytest.mark.parametrize(("rank", "told"), [(4, 8), (16, 16), (17, 32), (64, 64), (300, 320), (512, 512)])
def test_the_card_names_the_rank_that_vllm_has_to_be_told(rank: int, told: int, adapter: LoraAdapter, tmp_path: Path) -> None:
    text = card_of(replace(adapter, rank=rank, base="org/some-model"), tmp_path).text
    assert f"rank {rank} needs `--max-lora-rank {told}`" in text
    assert f"vllm serve org/some-model --enable-lora --max-lora-rank {told} --lora-modules" in text


def test_the_card_of_a_rank_that_vllm_does_not_serve_says_so(adapter: LoraAdapter, tmp_path: Path) -> None:
    text = card_of(replace(adapter, rank=513), tmp_path).text
    assert "vLLM serves ranks up to 512; merge the adapter" in text
    assert "vllm serve" not in text


def test_the_example_in_the_card_runs(checkpoints: dict[str, Path], adapter: LoraAdapter, tmp_path: Path) -> None:
    code = card_of(adapter, tmp_path).text.split("```python\n")[1].split("```")[0]
    code = code.replace("the/base", str(checkpoints["llama"])).replace("this/directory", str(tmp_path))
    names: dict[str, Any] = {}
    exec(code, names)
    assert sum(hasattr(m, "lora_A") for m in names["model"].modules()) == len(adapter.tensors)
