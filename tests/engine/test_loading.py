from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from made_updates import strong
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from conftest import byte_tokenizer, tiny_model
from selfedit.config import AtOnce
from selfedit.engine.model.loading import choose_device, load_outline
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError, SettingsError


@pytest.fixture
def copy(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints["llama"], tmp_path / "copy"))


def refused(path: Path | str, match: str, **options: object) -> None:
    with pytest.raises(ModelError, match=match):
        TorchEngine.load(str(path), device="cpu", **options)  # type: ignore[arg-type]


def test_a_directory_without_a_tokenizer_is_refused(copy: Path) -> None:
    for file in copy.glob("*token*"):
        file.unlink()
    refused(copy, "save the model's own into it")


def test_pickled_weights_are_refused_unless_allowed(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    refused(copy, "no weights")
    torch.save(state, copy / "pytorch_model.bin")
    refused(copy, "pickled")
    assert TorchEngine.load(str(copy), device="cpu", allow_pickle=True).window == 96


def test_a_checkpoint_with_a_missing_weight_is_refused(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, "missing, such as model.layers.1.mlp.up_proj.weight")


def test_a_tokenizer_without_an_end_is_refused(copy: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(copy)
    refused(copy, "end-of-text")


def test_what_is_no_model_is_refused(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "nowhere", "no such directory")
    refused(tmp_path, "no config.json")
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, "it is an adapter")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (copy / "model.safetensors").write_bytes(b"no safetensors")
    refused(copy, "can't be loaded")
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=260)
    BertForMaskedLM(config).save_pretrained(copy)
    refused(copy, "BertForMaskedLM|BertLMHead|missing|can't be loaded")


def test_a_model_that_looks_ahead_is_refused(copy: Path) -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=260)
    config.is_decoder = True
    model = BertForMaskedLM(config)
    with pytest.raises(ModelError):
        TorchEngine(model, byte_tokenizer())


@pytest.mark.parametrize(
    "device", ["gpu", "GPU", "CPU", "", " cpu", "mps", "xpu", "meta", "vulkan", "cuda:x", "cuda:-1", "cuda:99"]
)
def test_a_device_that_is_none_or_not_there_is_a_setting_to_change(device: str) -> None:
    with pytest.raises(SettingsError, match=r"^model\.device: .*(set it to|the last of)"):
        choose_device(device)


@pytest.mark.parametrize(("there", "asked", "message"), [(0, "cuda", "no CUDA device"), (2, "cuda:2", "the last .* is 'cuda:1'")])
def test_a_cuda_device_is_counted(there: int, asked: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(SettingsError, match=message):
        choose_device(asked)
    if there:
        assert choose_device(f"cuda:{there - 1}").index == there - 1


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665fbd3d6c4e1a9\nsize 988097824\n"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_pointer_of_git_lfs_is_called_that(file: str, copy: Path) -> None:
    (copy / file).write_text(POINTER)
    refused(copy, f"{file}: a Git LFS pointer.*git lfs pull")
    with pytest.raises(ModelError, match="git lfs pull"):
        load_outline(str(copy), trust_remote_code=False, allow_pickle=False)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"", b"\x10\x20"])
def test_a_damaged_file_of_weights_asks_for_another_copy(content: bytes, copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(content)
    refused(copy, "copy the whole checkpoint again")


def test_an_adapter_beside_the_model_is_left_alone(copy: Path, checkpoints: dict[str, Path]) -> None:
    """As where PEFT saves an adapter into the directory of its base, and transformers would put it into the base."""
    bare = TorchEngine.load(str(checkpoints["llama"]), device="cpu")
    strong(bare.initial_adapter(rank=2, alpha=4.0, seed=0)).save(copy.parent / "adapter")  # refused beside a model
    for file in (copy.parent / "adapter").iterdir():
        file.rename(copy / file.name)
    with pytest.warns(UserWarning, match="an adapter lies beside the model, and is left alone"):
        beside = TorchEngine.load(str(copy), device="cpu")
    assert beside.base_sha256() == bare.base_sha256()
    assert [target.path for target in beside.layout.targets] == [target.path for target in bare.layout.targets]
    (copy / "model.safetensors").unlink()
    refused(copy, "no weights .* but an adapter's")


def test_unknown_targets_name_the_modules_there_are(checkpoints: dict[str, Path]) -> None:
    refused(checkpoints["llama"], "q_proj", targets="c_attn")
    refused(checkpoints["gpt2"], "cannot be split", targets="paper")
    assert TorchEngine.load(str(checkpoints["gpt2"]), device="cpu", targets="c_attn, c_fc").window == 96


def test_chunk_sizes_below_one_are_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(SettingsError):
        TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=0))


def test_capped_and_scaled_logits_are_the_models_own() -> None:
    shape = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    gemma = Gemma2ForCausalLM(Gemma2Config(**shape, head_dim=8, final_logit_softcapping=2.0))
    granite = GraniteForCausalLM(GraniteConfig(**shape, logits_scaling=3.0))
    for model in (gemma, granite):
        engine = TorchEngine(model, byte_tokenizer())
        ids = [5, 9, 200, 31, 77]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, 1:-1]
        expected = torch.log_softmax(logits, -1)[range(3), ids[2:]]
        ((scored,),) = engine.score([[(ids[:2], ids[2:])]], on=None)
        assert scored.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_prompts_start_a_document_and_continuations_do_not(llama: TorchEngine) -> None:
    assert llama.encode_prompt("ab") == [1, *llama.encode("ab")]
    assert llama.decode(llama.encode_prompt("ab é")) == "ab é"
    assert llama.eos_id == 2


def test_special_tokens_spelled_out_are_plain_text(llama: TorchEngine) -> None:
    for text in ("</s>", "a <s> b</s>", "<|user|>"):
        assert min(llama.encode(text)) > 3
        assert llama.encode_prompt(text) == [1, *llama.encode(text)]
        assert llama.decode(llama.encode(text)) == text


def test_a_chat_template_counts_and_the_users_text_does_not(checkpoints: dict[str, Path]) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu")
    assert engine.encode_chat("hi") == engine.encode_prompt("hi")
    engine.tokenizer.chat_template = "<s>{% for m in messages %}<|user|>{{ m.content }}</s>{% endfor %}"
    assert engine.encode_chat("a</s>b") == [1, 3, *engine.encode("a</s>b"), 2]
    engine.tokenizer.chat_template = "nothing"
    with pytest.raises(ModelError, match="chat template"):
        engine.encode_chat("hi")


def test_bf16_loads_in_bf16(checkpoints: dict[str, Path]) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", dtype="bf16")
    assert engine.model.dtype == torch.bfloat16
    assert json.loads((checkpoints["llama"] / "config.json").read_text())["dtype"] == "float32"


def test_the_tiny_models_are_decisive_enough_to_compare() -> None:
    logits = tiny_model("llama").eval()(input_ids=torch.tensor([[1, 50, 60]])).logits[0, -1].detach()
    best = logits.topk(2).values
    assert float(best[0] - best[1]) > 1e-3


@pytest.mark.parametrize(("units", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_only_where_the_processor_has_matrix_units_for_it(
    units: bool, chosen: torch.dtype, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units, "avx512_bf16": True}, raising=False)
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", dtype="auto")
    assert engine.model.dtype == chosen
    assert f"torch.{engine.dtype}" == str(chosen)
