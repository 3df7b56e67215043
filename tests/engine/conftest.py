"""Tiny random models of all families with a byte-level tokenizer, saved as Hugging Face checkpoints. No downloads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from selfedit.engine.torch_engine import TorchEngine

# Most tests run over these three; test_architectures.py runs over all of FAMILIES.
SOME = ("llama", "gpt2", "qwen2")
WINDOW = 7
_ENDS = {"vocab_size": 260, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.15}
_ROTARY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}
_GROUPED = {**_ROTARY, "num_key_value_heads": 2, "tie_word_embeddings": False}
_HEAD = {"head_dim": 12}  # 4 heads of 12 are not the width of 32
_MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_GEMMA = {**_GROUPED, **_HEAD, **_MIXED, "query_pre_attn_scalar": 12, "tie_word_embeddings": True}
_LOCAL_AND_GLOBAL = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
}
# A checkpoint's model_type and settings, chosen so that what is particular to the family changes its logits.
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {**_ROTARY, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2-sliding": ("qwen2", {**_GROUPED, **_MIXED, "use_sliding_window": True}),
    "mistral": ("mistral", {**_GROUPED, **_HEAD, "sliding_window": WINDOW}),
    "qwen3": ("qwen3", {**_GROUPED, **_HEAD, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**_GEMMA, "attn_logit_softcapping": 1.0, "final_logit_softcapping": 4.0}),
    "gemma3": ("gemma3_text", {**_GEMMA, "rope_parameters": _LOCAL_AND_GLOBAL}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": WINDOW}),
    "neox": ("gpt_neox", {**_ROTARY, "rotary_pct": 0.5, "use_parallel_residual": True}),
}
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


def tiny_model(family: str, **changes: object) -> PreTrainedModel:
    torch.manual_seed(5)
    kind, settings = FAMILIES[family]
    config = AutoConfig.for_model(kind, **_ENDS, **{**settings, **changes})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = {}
    for family in FAMILIES:
        out[family] = tmp_path_factory.mktemp(family)
        tiny_model(family).save_pretrained(out[family])
        byte_tokenizer().save_pretrained(out[family])
    return out


class _Engines(dict[str, TorchEngine]):
    """One engine a family, loaded when first asked for."""

    def __init__(self, checkpoints: dict[str, Path]) -> None:
        super().__init__()
        self._checkpoints = checkpoints

    def __missing__(self, family: str) -> TorchEngine:
        self[family] = TorchEngine.load(str(self._checkpoints[family]), device="cpu")
        return self[family]


@pytest.fixture(scope="session")
def engines(checkpoints: dict[str, Path]) -> dict[str, TorchEngine]:
    return _Engines(checkpoints)


@pytest.fixture
def llama(engines: dict[str, TorchEngine]) -> TorchEngine:
    return engines["llama"]


@pytest.fixture(params=SOME)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)
