"""A GGUF file's metadata as the configuration of a transformers model.

transformers reads GGUF files itself, but leaves out what some models need: the scaling of rotary positions (Llama 3, Gemma 3
from 4B, YaRN), the attention's own scale (Gemma 27B), a width of heads that is not the class's default (Qwen3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .gguf_header import Header

ROPE_FREQS = "rope_freqs.weight"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """An architecture: its transformers type, whether rows of q and k are interleaved in the file, and what norms are less 1.

    ``thirty``: layers of the size whose attention is scaled by the model's width (Gemma's 27B).
    """

    model_type: str
    architecture: str
    interleaved: bool = False
    norm_offset: bool = False
    scaled_by_width: int = 0
    fixed: dict[str, Any] = field(default_factory=dict)


_GELU = {"hidden_activation": "gelu_pytorch_tanh"}
KINDS = {
    "llama": Kind("llama", "LlamaForCausalLM", interleaved=True),
    "qwen2": Kind("qwen2", "Qwen2ForCausalLM", fixed={"use_sliding_window": False}),
    "qwen3": Kind("qwen3", "Qwen3ForCausalLM", fixed={"use_sliding_window": False}),
    "gemma": Kind("gemma", "GemmaForCausalLM", norm_offset=True, fixed=_GELU | {"hidden_act": "gelu_pytorch_tanh"}),
    "gemma2": Kind("gemma2", "Gemma2ForCausalLM", norm_offset=True, scaled_by_width=46, fixed=_GELU),
    "gemma3": Kind("gemma3_text", "Gemma3ForCausalLM", norm_offset=True, scaled_by_width=62, fixed=_GELU),
    "smollm3": Kind("smollm3", "SmolLM3ForCausalLM", interleaved=True, fixed={"no_rope_layer_interval": 4}),
}


def kind_of(header: Header) -> Kind:
    """What kind of model the file holds.

    Raises:
        ModelError: one that this converter does not know.
    """
    path, name = header.path, header.architecture
    if header.metadata.get("general.type", "model") != "model":
        raise ModelError(f"{path}: it holds an {header.metadata['general.type']}, not a model; name the model's own file")
    if name not in KINDS:
        raise ModelError(
            f"{path}: models of the architecture {name!r} can't be converted; there are {', '.join(KINDS)} (Mistral is a llama). "
            "Take the model's original checkpoint in the Hugging Face format"
        )
    if header.get("expert_count"):
        raise ModelError(f"{path}: a mixture of experts can't be converted; take the model's original checkpoint")
    return KINDS[name]


def config_of(header: Header, read: Callable[[str], Floats]) -> dict[str, Any]:
    """The model's configuration, as fields of its class. ``read``: the values of a tensor.

    Raises:
        ModelError: the architecture is not known, metadata are missing, or positions are scaled in a way that is not known.
    """
    kind, path = kind_of(header), header.path
    heads = _number(header, "attention.head_count")
    width, layers = _number(header, "embedding_length"), _number(header, "block_count")
    head = int(header.get("attention.key_length") or header.get("rope.dimension_count") or width // heads)
    rotated = int(header.get("rope.dimension_count") or head)
    if rotated != head or int(header.get("attention.value_length") or head) != head:
        raise ModelError(f"{path}: heads of {head} numbers of which {rotated} are rotated can't be converted")
    if "token_embd.weight" not in header.tensors:
        raise ModelError(f"{path}: it holds no token embeddings, so it is not a whole model; download it again")
    ids = {name: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _IDS}
    fields = {
        "architectures": [kind.architecture],
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "intermediate_size": _number(header, "feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": _number(header, "attention.head_count_kv", heads),
        "head_dim": head,
        "max_position_embeddings": _number(header, "context_length"),
        "rms_norm_eps": _short(header.get("attention.layer_norm_rms_epsilon", 1e-6)),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "rope_parameters": _rope(header, read, head),
        **ids,
        **kind.fixed,
    }
    if kind.model_type in ("llama", "qwen3", "smollm3"):
        fields["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if kind.scaled_by_width:
        fields["query_pre_attn_scalar"] = width // heads if layers == kind.scaled_by_width else head
        fields["sliding_window"] = _number(header, "attention.sliding_window", 4096)
    if kind.model_type == "gemma2":
        fields["attn_logit_softcapping"] = _short(header.get("attn_logit_softcapping", 50.0))
        fields["final_logit_softcapping"] = _short(header.get("final_logit_softcapping", 30.0))
    if kind.model_type == "gemma3_text":
        fields |= _gemma3(header, fields)
    return fields


_IDS = (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding"))


def _gemma3(header: Header, fields: dict[str, Any]) -> dict[str, Any]:
    """Every sixth layer sees all tokens, with positions of its own."""
    local = {"rope_type": "default", "rope_theta": _short(header.get("rope.freq_base_swa", 1e4))}
    every = header.get("attention.sliding_window_pattern", 6)
    sliding = [bool(x) for x in every] if isinstance(every, list) else [bool((i + 1) % every) for i in range(_layers(header))]
    return {
        "rope_parameters": {"full_attention": fields["rope_parameters"], "sliding_attention": local},
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in sliding],
    }


def _layers(header: Header) -> int:
    return _number(header, "block_count")


def _number(header: Header, key: str, default: int | None = None) -> int:
    """A whole number of the metadata; one per layer only where they are all the same."""
    value = header.get(key, default)
    if value is None:
        raise ModelError(f"{header.path}: it does not say its {header.architecture}.{key}; convert the model anew")
    if isinstance(value, list):
        if len(set(value)) != 1:
            raise ModelError(f"{header.path}: its layers differ in {key}, which can't be converted; take the original checkpoint")
        value = value[0]
    return int(value)


def _short(value: float) -> float:
    """A 32-bit number as it was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rope(header: Header, read: Callable[[str], Floats], head: int) -> dict[str, Any]:
    """Rotary positions: their base, and how they are scaled."""
    base = {"rope_theta": _short(header.get("rope.freq_base", 1e4))}
    kind, factor = header.get("rope.scaling.type", "none"), _short(header.get("rope.scaling.factor", 0.0))
    if kind == "none" and (linear := header.get("rope.scale_linear")):
        kind, factor = "linear", _short(linear)
    if ROPE_FREQS in header.tensors:
        return _llama3(header.path, read(ROPE_FREQS), base, head)
    if kind == "linear" and factor:
        return base | {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and factor:
        original = header.get("rope.scaling.original_context_length")
        extra = {"original_max_position_embeddings": int(original)} if original else {}
        return base | {"rope_type": "yarn", "factor": factor, **extra}
    if kind != "none" or any(name.startswith("rope_factors") for name in header.tensors):
        raise ModelError(f"{header.path}: positions scaled by {kind!r} can't be converted; take the model's original checkpoint")
    return base | {"rope_type": "default"}


def _llama3(path: Path, divisors: Floats, base: dict[str, Any], head: int) -> dict[str, Any]:
    """Llama 3's scaling, which the file holds as the divisor of each frequency: the numbers that it was made from.

    All of its releases take 1, 4 and 8192 for three of the numbers; the fourth, the factor, is the largest divisor.
    """
    factor, low, high, original = _short(float(divisors.max())), 1.0, 4.0, 8192
    lengths = 2 * math.pi * base["rope_theta"] ** (np.arange(0, head, 2) / head)
    smooth = (original / lengths - low) / (high - low)
    mixed = 1 / ((1 - smooth) / factor + smooth)
    expected = np.where(lengths > original / low, factor, np.where(lengths < original / high, 1.0, mixed))
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-3):
        raise ModelError(f"{path}: its positions are scaled in an unknown way ({ROPE_FREQS}); take the original checkpoint")
    names = ("rope_type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return base | dict(zip(names, ("llama3", factor, low, high, original), strict=True))
