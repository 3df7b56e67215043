"""What a GGUF file says before its weights: metadata, and where each tensor lies, over all parts of a split file.

The package ``gguf`` has a reader too, which makes arrays of every token and merge: 20 seconds and more for a vocabulary. The
header is short to read; what needs care, the quantised formats, is the package's work (`gguf_import`).
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..tasks.formats import LFS_POINTER

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
# Of the format's types of values: their form for `struct`. 8 is a string, 9 an array.
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file: its shape as torch has it, its type by the format's number, and its bytes' place."""

    name: str
    shape: tuple[int, ...]
    kind: int
    file: Path
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """Metadata by their keys (an array of strings as their number), and the tensors by their names."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        """The architecture by llama.cpp's name."""
        return str(self.metadata["general.architecture"])

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the architecture's own, such as ``block_count``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def parts_of(path: Path) -> list[Path]:
    """All parts of the file that ``path`` is one of, in their order.

    Raises:
        ModelError: a part is missing.
    """
    match = _SPLIT.fullmatch(path.name)
    if not match:
        return [path]
    parts = [path.with_name(f"{match[1]}-{i:05}-of-{match[3]}.gguf") for i in range(1, int(match[3]) + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ModelError(
            f"{path}: {len(missing)} of its {len(parts)} parts are missing, such as {missing[0]}; put them beside it"
        )
    return parts


def read(parts: Sequence[Path]) -> Header:
    """The header of a file, or of all parts of a split one.

    Raises:
        ModelError: it is no GGUF file, is cut off, or holds a type of tensors that is not known.
    """
    metadata: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for part in parts:
        own, some = _read_part(part)
        metadata = metadata or own
        tensors |= {tensor.name: tensor for tensor in some}
    if "general.architecture" not in metadata:
        raise ModelError(f"{parts[0]}: it names no architecture, so it is no language model; take another file")
    said = metadata.get("split.tensors.count", 0) or len(tensors)
    if said != len(tensors):
        raise ModelError(f"{parts[0]}: its parts have {len(tensors)} tensors in place of {said}; put all parts in one folder")
    return Header(parts[0], metadata, tensors)


def _read_part(path: Path) -> tuple[dict[str, Any], list[Tensor]]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
            if start == LFS_POINTER:
                raise ModelError(f"{path}: a Git LFS pointer in place of the file; fetch the file itself: git lfs pull")
            if start[:4] != b"GGUF":
                raise ModelError(f"{path}: no GGUF file (it does not begin with 'GGUF'); download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(data, path).header(size)
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror}); name a GGUF file") from None
    except (struct.error, UnicodeDecodeError, IndexError, OverflowError):
        raise ModelError(f"{path}: the file is cut off or damaged; download it again") from None


class _Cursor:
    """A place in a file's header, from which values are read one after another."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path, self._at = data, path, 4

    def header(self, size: int) -> tuple[dict[str, Any], list[Tensor]]:
        """All metadata and tensors of a file of ``size`` bytes."""
        (version,) = self._take("I")
        if version not in (2, 3):
            raise ModelError(f"{self._path}: GGUF of version {version} (or of a big-endian machine); convert the model anew")
        n_tensors, n_values = self._take("QQ")
        metadata = {}
        for _ in range(n_values):
            key = self._text()
            metadata[key] = self._value(*self._take("I"))
        found = []
        for _ in range(n_tensors):
            name = self._text()
            shape = self._take(f"{self._take('I')[0]}Q")
            found.append((name, tuple(reversed(shape)), *self._take("IQ")))
        alignment = metadata.get("general.alignment", 32)
        start = -(-self._at // alignment) * alignment
        tensors = [Tensor(n, s, kind, self._path, start + at, self._bytes(n, s, kind)) for n, s, kind, at in found]
        if any(tensor.start + tensor.size > size for tensor in tensors):
            raise ModelError(f"{self._path}: the file is cut off ({size} bytes); download it again")
        return metadata, tensors

    def _bytes(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        """Bytes of a tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise ModelError(
                f"{self._path}: {name} is quantised in a way (type {kind}) that the package gguf doesn't know"
            ) from None
        return prod(shape) // block * size

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values

    def _text(self) -> str:
        (length,) = self._take("Q")
        (raw,) = self._take(f"{length}s")
        return str(raw, encoding="utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._take(self._form(kind))[0]
        kind, n = self._take("IQ")
        if kind != _STRING:
            return list(self._take(f"{n}{self._form(kind)}"))
        for _ in range(n):
            (length,) = self._take("Q")
            self._at += length
        return n

    def _form(self, kind: int) -> str:
        if kind not in _FORMS:
            raise ModelError(f"{self._path}: metadata of the type {kind}, which is not known; convert the model anew")
        return _FORMS[kind]
