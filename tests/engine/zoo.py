"""Tiny random models of kinds that are not in `conftest.FAMILIES`: hybrids, mixtures of experts, models that also see."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

_TEXT = {
    "vocab_size": 260,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.15,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": False,
}
_HEAD = {"head_dim": 8}
_TYPES = {"layer_types": ["linear_attention", "full_attention"]}
_DELTA = {
    **_TYPES,
    **_HEAD,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SLIDING = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_d_state": 8}
_MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_QWEN_VISION = {"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4}
_QWEN_IDS = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}

HYBRIDS: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False, "conv_L_cache": 3},
    "qwen3_5_text": _DELTA,
    "qwen3_next": {**_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 16},
    "granitemoehybrid": {
        **_TYPES,
        **_MAMBA,
        "mamba_d_head": 16,
        "shared_intermediate_size": 32,
        "num_local_experts": 0,
    },
    "falcon_h1": {**_HEAD, **_MAMBA, "mamba_d_ssm": 32, "mamba_d_head": 8},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_experts": 2,
        "mamba_d_state": 4,
    },
    "olmo_hybrid": _TYPES,
}
PLAIN: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {**_HEAD, **_SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {**_HEAD, "num_local_experts": 2, "intermediate_size_mlp": 32, "num_experts_per_tok": 1},
    "olmo2": {},
    "smollm3": {"no_rope_layers": [1, 0]},
}
# Settings of the language part, and those of the model around it.
COMPOSITES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": (
        {**_HEAD, **_SLIDING, "query_pre_attn_scalar": 8, "tie_word_embeddings": True},
        {"vision_config": {**_VISION, "projection_dim": 32}, "mm_tokens_per_image": 4, "image_token_index": 5},
    ),
    "gemma4": (
        {**_HEAD, **_SLIDING, "vocab_size_per_layer_input": 260, "hidden_size_per_layer_input": 8},
        {"vision_config": {**_VISION, "num_hidden_layers": 1, "position_embedding_size": 16}, "audio_config": None},
    ),
    "mistral3": (
        {**_HEAD, "model_type": "mistral"},
        {"vision_config": {**_VISION, "model_type": "pixtral", "head_dim": 8}, "image_token_index": 5, "spatial_merge_size": 1},
    ),
    "qwen2_5_vl": (_MROPE, {"vision_config": _QWEN_VISION, **_QWEN_IDS}),
    "qwen3_5": (_DELTA, {"vision_config": {**_QWEN_VISION, "num_position_embeddings": 16}, **_QWEN_IDS}),
    "llava": (
        {"model_type": "llama"},
        {"vision_config": {**_VISION, "model_type": "clip_vision_model", "projection_dim": 16}, "image_token_index": 5},
    ),
}
REFUSED: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "mamba_d_head": 16, "attn_layer_indices": [1]},
    "minimax": {**_HEAD, "layer_types": ["full_attention", "linear_attention"], "num_local_experts": 2},
    "mamba": {"state_size": 4},
}
ALL = [*HYBRIDS, *PLAIN, *COMPOSITES]


def build(kind: str) -> PreTrainedModel:
    """A model of this kind with the same random weights every time."""
    torch.manual_seed(5)
    if kind not in COMPOSITES:
        config = AutoConfig.for_model(kind, **{**_TEXT, **{**HYBRIDS, **PLAIN, **REFUSED}[kind]})
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    text, around = COMPOSITES[kind]
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, text_config={**_TEXT, **text}, **around))
