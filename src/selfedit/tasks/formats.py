"""What a file is, by its first bytes: compressed files are read through, and what is no JSON is called by its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

PARQUET = b"PAR1"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
HEAD_BYTES = 512  # that are looked at
# What reading a compressed file may raise, besides OSError.
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_CONVERT = "convert it to JSONL, or save its text as UTF-8"
_UTF_8 = "save it as UTF-8"
_FETCH = "the file itself was not downloaded; run git lfs pull in its repository, or download the file again"
_OTHERS = (
    (LFS_POINTER, "a Git LFS pointer, not the file that it stands for", _FETCH),
    (b"/annex/objects/", "a git-annex pointer, not the file that it stands for", "run git annex get in its repository"),
    (PARQUET, "a Parquet file", "convert it to JSON"),
    (b"PK\x03\x04", "a zip archive (Excel and NumPy files are such archives, too)", f"unpack it, or {_CONVERT}"),
    (b"PK\x05\x06", "an empty zip archive", "fetch or write it again"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it (gunzip)"),
    (b"BZh", "compressed with bzip2", "unpack it (bunzip2)"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it (unzstd)"),
    (b"ARROW1", "an Arrow file", _CONVERT),
    (b"\xff\xff\xff\xff", "an Arrow stream", _CONVERT),
    (b"SQLite format 3\0", "an SQLite database", _CONVERT),
    (b"\x89HDF\r\n", "an HDF5 file", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"%PDF-", "a PDF file", "save its text as UTF-8 (pdftotext)"),
    (b"{\\rtf", "an RTF document", "save its text as UTF-8"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.doc, .xls, .ppt)", "save its text as UTF-8"),
    (b"\x89PNG", "a PNG image", "give its text instead"),
    (b"\xff\xd8\xff", "a JPEG image", "give its text instead"),
    (b"\xff\xfe\0\0", "UTF-32, not UTF-8", _UTF_8),
    (b"\0\0\xfe\xff", "UTF-32, not UTF-8", _UTF_8),
    (b"\xff\xfe", "UTF-16, not UTF-8", _UTF_8),
    (b"\xfe\xff", "UTF-16, not UTF-8", _UTF_8),
)


def foreign(head: bytes) -> tuple[str, str] | None:
    """What a file that begins with ``head`` is, and what to do; None where it may be text in UTF-8."""
    for magic, what, advice in _OTHERS:
        if head.startswith(magic):
            return what, advice
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    if b"\0" in head:
        wide = len(head) > 3 and (not any(head[1:40:2]) or not any(head[:40:2]))
        order = "le" if any(head[:40:2]) else "be"
        return (
            ("UTF-16, not UTF-8", f"{_UTF_8} (iconv -f utf-16{order} -t utf-8)")
            if wide
            else ("a binary file, not text", _CONVERT)
        )
    return None


def is_lfs_pointer(file: Path) -> bool:
    """The file is what Git leaves in the place of a large one."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def is_web_page(head: bytes) -> bool:
    """A file that begins with ``head`` is HTML: what a download gives that asks to sign in."""
    return head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def unpacked(stream: BufferedReader) -> BufferedReader:
    """The stream, or what it holds where it is compressed with gzip, bzip2 or xz."""
    head = stream.peek(HEAD_BYTES)
    read = next((read for magic, read in _COMPRESSED.items() if head.startswith(magic)), None)
    return stream if read is None else BufferedReader(read(stream))
