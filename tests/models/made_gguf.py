"""Tiny random models as GGUF files, laid out as llama.cpp's converters lay them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
)

Q = GGMLQuantizationType
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
INTERLEAVED, OFFSET = ("llama", "smollm3"), ("gemma", "gemma2", "gemma3")
TYPES = {"gemma3": "gemma3_text"}


def byte_level_words() -> tuple[list[str], list[str]]:
    """A vocabulary of bytes and a few words, with the merges that make them."""
    merges = ["t h", "th e", "Ġ the", "Ġ 1", "1 2"]
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    return [*words, *("".join(merge.split(" ")) for merge in merges)], merges


def sentence_pieces() -> tuple[list[str], list[float], list[int]]:
    """A vocabulary of pieces, with scores and types (3 a special token, 6 a byte, 1 a word)."""
    words = ["▁", "t", "h", "e", "th", "the", "▁the", "1", "2", "12"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    return tokens, [0.0] * 259 + [-float(i) for i in range(len(words))], [2, 3, 3] + [6] * 256 + [1] * len(words)


def tiny(architecture: str, **fields: Any) -> PreTrainedModel:
    """A random model with two layers of 256 numbers, every parameter of it random, norms and biases too."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 64, "vocab_size": 280}
    config = AutoConfig.for_model(TYPES.get(architecture, architecture), **sizes | fields)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def write(
    path: Path,
    architecture: str,
    model: PreTrainedModel,
    *,
    kind: GGMLQuantizationType = Q.F32,
    pieces: bool = False,
    name: str = "Tiny",
    extra: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    split: int = 0,
    leave_out: Sequence[str] = (),
    pre: str = "qwen2",
) -> None:
    """Write ``model`` to ``path``, matrices quantised as ``kind``; the model then has the values that were written.

    ``extra``: further metadata (of None: the key is left out); ``tensors``: further tensors; ``split``: tensors in a part.
    """
    writer = GGUFWriter(path, architecture, split_max_tensors=split)
    config = model.config
    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim if hasattr(config, "head_dim") else 64)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if getattr(config, "sliding_window", None) and architecture.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    add_tokenizer(writer, pieces, pre)
    for key, value in (extra or {}).items():
        {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}[type(value)](
            key, value
        )
    add_tensors(writer, architecture, model, kind, leave_out)
    for tensor_name, values in (tensors or {}).items():
        writer.add_tensor(tensor_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: GGUFWriter, pieces: bool, pre: str) -> None:
    if pieces:
        tokens, scores, types = sentence_pieces()
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(scores)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    else:
        tokens, merges = byte_level_words()
        types = [3, 3, 3, *[1] * (len(tokens) - 3)]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
        writer.add_chat_template(CHAT)
    unused = 280 - len(tokens)
    writer.add_token_list([*tokens, *(f"[PAD{i}]" for i in range(unused))])
    writer.add_token_types([*types, *[5] * unused])
    if pieces:
        return


def add_tensors(
    writer: GGUFWriter, architecture: str, model: PreTrainedModel, kind: GGMLQuantizationType, leave_out: Sequence[str]
) -> None:
    theirs = get_tensor_name_map(
        next(a for a, n in MODEL_ARCH_NAMES.items() if n == architecture), model.config.num_hidden_layers
    )
    state = model.state_dict()
    heads = {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
    for name, tensor in state.items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, _, leaf = name.rpartition(".")
        written, values = f"{theirs.get_name(stem)}.{leaf}", tensor.numpy().copy()
        which = next((x for x in heads if f"attn_{x}." in written), None)
        if architecture in INTERLEAVED and which:
            values = apart(values, heads[which])
        if architecture in OFFSET and written.endswith("norm.weight"):
            values = values + np.float32(1)
        if values.ndim > 1 and kind != Q.F32:
            packed = random_blocks(values.shape, kind) if kind in (Q.Q4_K, Q.Q6_K) else quantize(values, kind)
            values = dequantize(packed, kind).reshape(values.shape)
            if written not in leave_out:
                writer.add_tensor(written, packed, raw_dtype=kind)
        elif written not in leave_out:
            writer.add_tensor(written, values)
        if architecture in OFFSET and written.endswith("norm.weight"):
            values = values - np.float32(1)
        if architecture in INTERLEAVED and which:
            values = together(values, heads[which])
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def apart(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k as llama.cpp wants them."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def together(values: np.ndarray, heads: int) -> np.ndarray:
    """The opposite of `apart`."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def random_blocks(shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    """Bytes of a quantisation that the package can unpack only, with scales of about 0.001."""
    block, size = GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // block, size), np.uint8)
    scales = [0, 2] if kind == Q.Q4_K else [size - 2]
    for at in scales:
        blocks[:, at : at + 2] = np.full((len(blocks), 1), 1e-4, np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)
