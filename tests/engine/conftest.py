"""Tiny random models of three families with a byte-level tokenizer, saved as Hugging Face checkpoints. No downloads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from selfedit.engine.torch_engine import TorchEngine

FAMILIES = ("llama", "gpt2", "qwen2")
SPECIALS = ("<pad>", "<s>", "</s>", "<|user|>")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*SPECIALS, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def tiny_model(family: str) -> PreTrainedModel:
    torch.manual_seed(5)
    ends = {"vocab_size": 260, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.15}
    rotary = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 96,
    }
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**ends, **rotary, num_key_value_heads=4, tie_word_embeddings=True))
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**ends, **rotary, num_key_value_heads=2, tie_word_embeddings=False))
    return GPT2LMHeadModel(GPT2Config(**ends, n_embd=32, n_layer=2, n_head=4, n_positions=96))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = {}
    for family in FAMILIES:
        out[family] = tmp_path_factory.mktemp(family)
        tiny_model(family).save_pretrained(out[family])
        byte_tokenizer().save_pretrained(out[family])
    return out


@pytest.fixture(scope="session")
def engines(checkpoints: dict[str, Path]) -> dict[str, TorchEngine]:
    """One engine a family; a test that mounts something must unmount it."""
    return {family: TorchEngine.load(str(path), device="cpu") for family, path in checkpoints.items()}


@pytest.fixture
def llama(engines: dict[str, TorchEngine]) -> TorchEngine:
    return engines["llama"]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)
