"""A GGUF file as a model in the Hugging Face format: de-quantised row by row, so that little of it is in memory at once."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, SettingsError
from .gguf_config import ROPE_FREQS, Floats, Kind, config_of, kind_of
from .gguf_header import Header, Tensor, read
from .gguf_tokenizer import save_tokenizer
from .shelf import Tell
from .tensor_stream import Planned, begin, files_for, row_groups, write_index

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CARD = Path(__file__).resolve().parent.parent / "assets" / "imported_card.md"
_PLAIN = {0: "F32", 1: "F16", 30: "BF16"}  # the format's numbers of types that are no quantisation
_FP32_UP_TO = 4 << 30  # bytes of weights in fp32 beyond which half of them will do
# What models were once given beside their weights, and nothing reads any more.
_IGNORED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")


def need_gguf() -> None:
    """Refuse to begin without the extra.

    Raises:
        SettingsError: the package gguf is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise SettingsError("GGUF files need the package gguf; install it: pip install 'selfedit[gguf]'")


def convert(parts: Sequence[Path], directory: Path, *, source: str, licence: str = "", sha256: str, tell: Tell) -> None:
    """Write the model of a GGUF file (all parts of a split one) into ``directory``: weights, configs, tokenizer and a card.

    Weights keep their type; quantised ones become fp32, or bf16 where that would be more than 4 GiB. ``source``, ``licence``
    and ``sha256`` (of the first part) are for the card.

    Raises:
        SettingsError: the extra ``gguf`` is not installed.
        ModelError: the file is damaged, or holds a model or a quantisation that can't be converted; nothing was written then.
    """
    need_gguf()
    header = read(parts)
    kind = kind_of(header)
    types = _types(header)
    fields = config_of(header, lambda name: _values(header.tensors[name], slice(None)))
    outline = _outline(header, kind, fields)
    names = _names(header, outline)
    total = sum(tensor.size for tensor in header.tensors.values())
    quantised = sorted({name for name in types.values() if name not in _PLAIN.values()})
    size = 4 * sum(parameter.numel() for parameter in outline.parameters())
    unpacked = "F32" if size <= _FP32_UP_TO else "BF16"
    planned = {
        name: Planned(name, _dtype(tensor, kind, unpacked), tuple(outline.state_dict()[name].shape))
        for name, tensor in names.items()
    }
    notes: list[str] = []

    def note(sentence: str) -> None:
        notes.append(sentence)
        tell(sentence, 0, 0)

    special = save_tokenizer(header, directory, note)
    files = files_for(list(planned.values()))
    done = 0
    tell(f"converting {len(names)} tensors ({', '.join(quantised) or 'not quantised'})", 0, total)
    for file_name, group in files.items():
        with (directory / file_name).open("wb") as file:
            begin(file, group)
            for plan in group:
                tensor = names[plan.name]
                _write(file, tensor, plan, _order(tensor, kind, fields), _is_offset(tensor, kind))
                done += tensor.size
                tell("", done, total)
    write_index(directory, files)
    halves = {plan.dtype for plan in planned.values() if len(plan.shape) > 1}
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[halves.pop() if len(halves) == 1 else "F32"]
    _save_configs(outline, directory, special, dtype)
    numbers = sum(parameter.numel() for parameter in outline.parameters())
    _write_card(
        directory,
        name=header.metadata.get("general.name", header.path.stem),
        source=source,
        licence=licence or header.metadata.get("general.license", "not stated in the file; see the model's source"),
        sha256=sha256,
        quantisation=", ".join(quantised) or "none",
        dtype=dtype,
        parameters=f"{numbers / 1e6:.0f} million",
        notes="\n".join(f"- {sentence}." for sentence in notes),
    )


def _types(header: Header) -> dict[int, str]:
    """The types of the file's tensors, by their numbers, each of which can be unpacked.

    Raises:
        ModelError: one can't.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    found = {}
    for kind in sorted({tensor.kind for tensor in header.tensors.values()}):
        quantisation = GGMLQuantizationType(kind)
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[quantisation][1]), np.uint8), quantisation)
        except NotImplementedError:
            raise ModelError(
                f"{header.path}: weights of the type {quantisation.name} can't be unpacked; take a file of another quantisation, "
                "such as Q8_0 or Q4_K_M"
            ) from None
        found[kind] = quantisation.name
    return found


def _outline(header: Header, kind: Kind, fields: dict[str, Any]) -> PreTrainedModel:
    """The model without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.for_model(kind.model_type, **fields)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return]
    except Exception as error:  # what the file says can be anything
        raise ModelError(
            f"{header.path}: its metadata make no model ({' '.join(str(error).split())[:300]}); take another file"
        ) from error


def _names(header: Header, outline: PreTrainedModel) -> dict[str, Tensor]:
    """The file's tensors by the model's names for them.

    Raises:
        ModelError: one is missing, has another shape, or is left over.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == header.architecture)
    theirs = get_tensor_name_map(architecture, outline.config.num_hidden_layers)
    found: dict[str, Tensor] = {}
    for name, empty in outline.state_dict().items():
        if name == "lm_head.weight" and outline.config.tie_word_embeddings:
            continue
        stem, dot, leaf = name.rpartition(".")
        wanted = f"{theirs.get_name(stem)}{dot}{leaf}"
        tensor = header.tensors.get(wanted)
        if tensor is None:
            raise ModelError(f"{header.path}: the tensor {wanted} is missing, so it is not a whole model; download it again")
        if tensor.shape != tuple(empty.shape):
            raise ModelError(
                f"{header.path}: {wanted} has the shape {list(tensor.shape)} in place of {list(empty.shape)}, so it is not the "
                f"{header.architecture} that it says it is"
            )
        found[name] = tensor
    used = {tensor.name for tensor in found.values()} | {ROPE_FREQS}
    if left := [name for name in header.tensors if name not in used and not _IGNORED.fullmatch(name)]:
        raise ModelError(
            f"{header.path}: {len(left)} of its tensors, such as {left[0]}, have no place in a {header.architecture} of "
            "transformers; take the model's original checkpoint"
        )
    return found


def _dtype(tensor: Tensor, kind: Kind, unpacked: str) -> str:
    if _is_offset(tensor, kind):
        return "F32"
    return _PLAIN.get(tensor.kind, unpacked)


def _is_offset(tensor: Tensor, kind: Kind) -> bool:
    """Its values are one more than the model's."""
    return kind.norm_offset and tensor.name.endswith("norm.weight")


def _order(tensor: Tensor, kind: Kind, fields: dict[str, Any]) -> NDArray[np.int64] | None:
    """Where the model's rows are in the file; None where they are in order.

    llama.cpp rotates neighbouring numbers of a head, transformers those half a head apart.
    """
    rows = np.arange(tensor.shape[0])
    match = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", tensor.name)
    if not kind.interleaved or match is None:
        return None
    heads = fields["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
    return rows.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _write(file: BinaryIO, tensor: Tensor, plan: Planned, order: NDArray[np.int64] | None, offset: bool) -> None:
    """Append a tensor's values, some rows at a time."""
    import torch

    rows = tensor.shape[0]
    for some in row_groups(rows, 4 * int(np.prod(tensor.shape)) // max(1, rows)):
        at = some if order is None else order[some]
        if _PLAIN.get(tensor.kind) == plan.dtype and not offset:
            file.write(_raw(tensor)[at].tobytes())
            continue
        values = _values(tensor, at)
        if offset:
            values = values - 1
        if plan.dtype == "BF16":
            file.write(torch.from_numpy(values).bfloat16().view(torch.int16).numpy().tobytes())
        else:
            file.write(values.astype(np.float32).tobytes())


def _raw(tensor: Tensor) -> NDArray[np.uint8]:
    """A tensor's bytes, row by row (of a vector: number by number), read where they are used."""
    data = np.memmap(tensor.file, np.uint8, "r", tensor.start, (tensor.size,))
    return data.reshape(tensor.shape[0], -1)


def _values(tensor: Tensor, rows: slice | NDArray[np.int64]) -> Floats:
    """Some rows of a tensor in fp32."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    raw = np.ascontiguousarray(_raw(tensor)[rows])
    return np.asarray(dequantize(raw, GGMLQuantizationType(tensor.kind)), np.float32).reshape(len(raw), *tensor.shape[1:])


def _save_configs(outline: PreTrainedModel, directory: Path, special: dict[str, Any], dtype: str) -> None:
    """Write config.json, in the words of transformers 4 and 5, and generation_config.json."""
    from transformers import GenerationConfig

    config = outline.config
    config.dtype = dtype
    config.save_pretrained(directory)
    file = directory / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    rope = fields["rope_parameters"]
    whole = rope.get("full_attention", rope)
    scaled = whole.get("rope_type", "default") != "default"
    fields["rope_theta"], fields["torch_dtype"] = whole["rope_theta"], dtype
    fields["rope_scaling"] = {key: value for key, value in whole.items() if key != "rope_theta"} if scaled else None
    if "sliding_attention" in rope:
        fields["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    file.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    GenerationConfig(**special).save_pretrained(directory)


def _write_card(directory: Path, **said: str) -> None:
    text = Template(_CARD.read_text(encoding="utf-8")).substitute(said)
    (directory / "README.md").write_text(text, encoding="utf-8")
