"""A merged base answers as base and adapter do, says where it comes from, and is whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from made_updates import prompts, strong
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from conftest import FAMILIES
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def made(engine: TorchEngine) -> LoraAdapter:
    return strong(initial_adapter(engine.layout, 4, 6.0, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_base_answers_as_base_and_adapter_do(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    engine = engines[family]
    adapter, before, asked = made(engine), engine.base_sha256(), prompts(1, (3, 20, 50))
    engine.merge(adapter, tmp_path / "new" / "merged")
    assert engine.base_sha256() == before
    assert json.loads((tmp_path / "new" / "merged" / "merge.json").read_text()) == {
        "base": str(checkpoints[family]),
        "base_sha256": before,
        "adapter_sha256": adapter.sha256,
        "transformers": ["4.57", "5"],
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["merged"]

    adapter.save(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(checkpoints[family])
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "merged").eval()
    for prompt in asked:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            bare = engine.model(input_ids=ids).logits
            merged, beside = ours(input_ids=ids).logits, theirs(input_ids=ids).logits
        torch.testing.assert_close(merged, beside, rtol=1e-4, atol=1e-4)
        assert float((merged - bare).abs().max()) > 0.1

    loaded = TorchEngine.load(str(tmp_path / "new" / "merged"), device="cpu")
    answers = engine.answer([asked], on=None, members=engine.bank([adapter]), max_new_tokens=8)
    assert loaded.answer([asked], on=None, max_new_tokens=8) == answers
    assert loaded.base_sha256() != before


def test_a_merge_keeps_the_dtype_the_generation_config_and_the_chat_template(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", dtype="bf16")
    engine.model.generation_config = GenerationConfig(eos_token_id=[2, 7])
    engine.tokenizer.chat_template = "<|user|>{{ messages[0]['content'] }}"
    adapter = made(engine)
    engine.merge(adapter, tmp_path / "merged")
    merged = TorchEngine.load(str(tmp_path / "merged"), device="cpu", dtype="bf16")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "bfloat16"
    assert merged.stops == {2, 7}
    assert merged.encode_chat("hello") == engine.encode_chat("hello") != engine.encode_prompt("hello")
    for path, (a, b) in adapter.tensors.items():
        exact = engine.model.get_submodule(path).weight.float() + adapter.scale * b @ a
        assert torch.equal(merged.model.get_submodule(path).weight, exact.bfloat16())


@pytest.mark.parametrize("there", ["empty directory", "file", "dangling link"])
def test_an_existing_directory_is_refused(there: str, llama: TorchEngine, tmp_path: Path) -> None:
    place = tmp_path / "merged"
    {
        "empty directory": place.mkdir,
        "file": lambda: place.write_text("mine"),
        "dangling link": lambda: place.symlink_to(tmp_path / "nowhere"),
    }[there]()
    with pytest.raises(ModelError, match="exists already"):
        llama.merge(made(llama), place)
    assert list(tmp_path.iterdir()) == [place]


def test_an_interrupted_merge_leaves_nothing(llama: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(directory: Path) -> None:
        assert (Path(directory) / "model.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(llama.tokenizer, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llama.merge(made(llama), tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_a_tied_weight_is_not_merged(llama: TorchEngine, engines: dict[str, TorchEngine], tmp_path: Path) -> None:
    head = LoraAdapter({"lm_head": (torch.ones(1, 32), torch.ones(260, 1))}, 1, 1.0)
    with pytest.raises(ModelError, match=r"lm_head\.weight is tied"):
        llama.merge(head, tmp_path / "merged")
    engines["qwen2"].merge(head, tmp_path / "untied")
    assert [path.name for path in tmp_path.iterdir()] == ["untied"]


def test_an_adapter_of_another_base_is_not_merged(llama: TorchEngine, engines: dict[str, TorchEngine], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another base"):
        llama.merge(made(engines["gpt2"]), tmp_path / "merged")
    assert not list(tmp_path.iterdir())
