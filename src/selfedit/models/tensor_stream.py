"""safetensors files written one piece after another: no more than a piece is in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

SIZES = {"F32": 4, "F16": 2, "BF16": 2}
_MOST = 4 << 30  # bytes in one file


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its name, its type by the format's word, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * SIZES[self.dtype]


def files_for(tensors: Sequence[Planned], most: int = _MOST) -> dict[str, list[Planned]]:
    """The tensors by the file that each goes into, as transformers names them; a file has at most ``most`` bytes.

    Wide numbers come first, so that each tensor begins at a multiple of its numbers' size.
    """
    groups: list[list[Planned]] = [[]]
    for tensor in sorted(tensors, key=lambda tensor: -SIZES[tensor.dtype]):
        if groups[-1] and sum(t.size for t in groups[-1]) + tensor.size > most:
            groups.append([])
        groups[-1].append(tensor)
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups, 1)}


def write_index(directory: Path, files: dict[str, list[Planned]]) -> None:
    """Say which file each tensor is in, where there are several files."""
    if len(files) > 1:
        where = {tensor.name: name for name, group in files.items() for tensor in group}
        size = sum(tensor.size for group in files.values() for tensor in group)
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def begin(file: BinaryIO, tensors: Sequence[Planned]) -> None:
    """Write the file's header; the tensors' bytes follow, in the same order and without gaps."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.size]}
        at += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def row_groups(rows: int, row_bytes: int, most: int = 16 << 20) -> Iterator[slice]:
    """Rows in groups of about ``most`` bytes."""
    step = max(1, most // max(1, row_bytes))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
