"""A folder of text and Markdown files as passages: documents bring no questions, so their tasks have no probes.

Headings (Markdown's only) and blank lines are where a passage may end; a paragraph longer than a passage is cut after a
sentence, else after a word, never inside one.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import TaskFileError
from ..types import Task
from .places import Place, read_rest

MARKDOWN = (".md", ".markdown")
SUFFIXES = (".txt", *MARKDOWN)
MAX_WORD_CHARS = 2**16  # whatever is longer without a place to cut it is no text
MAX_TITLE_CHARS = 200

_HEADING = re.compile(r"#{1,6}[ \t]++(.+?)(?:[ \t]++#++)?")
_UNDERLINE = re.compile(r"={2,}|-{2,}")  # makes the line above a heading
_FENCE = ("```", "~~~")
_SENTENCE = re.compile(r"[.!?…][\"')\]”’]*\s|[。！？][」』”’]*")
_GAP = re.compile(r"\s|[。！？；，、」』]")  # scripts without spaces have these
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find_documents(folder: Path) -> list[Path]:
    """The text and Markdown files of a folder and those in it, by name; hidden ones (".x") are skipped, links followed.

    Raises:
        TaskFileError: there are none, a folder can't be read, or a link leads back to where it is.
    """
    found = list(_files(folder, ()))
    if not found:
        Place(folder).fail(f"no text file ({', '.join(SUFFIXES)}) in the folder", "put some there, or name another")
    return found


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = [(entry, entry.is_dir()) for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        Place(folder).fail(f"the folder can't be read ({error.strerror})", "check its permissions, or move it away")
    here = (status.st_dev, status.st_ino)
    if here in above:
        Place(folder).fail("the link leads back to a folder that it lies in", "remove the link")
    for entry, is_folder in entries:
        if is_folder:
            yield from _files(entry, (*above, here))
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def read_documents(folder: Path, passage_chars: int) -> Iterator[tuple[Place, Task]]:
    """Every passage of a folder's documents as a task without probes, with the place where it begins.

    Ids are the file's path in the folder and a hash of the passage: the same wherever the folder lies, and whatever else is
    in it. Hashes of the passages seen are kept in memory.

    Raises:
        TaskFileError: as `find_documents` and `read_document`; or a passage occurs twice, white space aside.
    """
    seen: dict[bytes, Place] = {}
    for path in find_documents(folder):
        for place, task in read_document(folder, path, passage_chars):
            key = hashlib.sha256(" ".join(task.text.split()).encode()).digest()[:16]
            if key in seen:
                place.fail(
                    f"the passage that begins here is there already, at {seen[key]}",
                    "take one of them out (a passage must not be both learned from and tested on)",
                )
            seen[key] = place
            yield place, task


def read_document(folder: Path, path: Path, passage_chars: int) -> Iterator[tuple[Place, Task]]:
    """One document's passages, of at most ``passage_chars`` characters each (a longer word stays whole), in their order.

    A passage's title is the nearest heading above it, or the file's name.

    Raises:
        TaskFileError: while iterating. The file can't be opened or read, is no regular file, is empty, binary or not UTF-8.
    """
    try:
        name = path.relative_to(folder).as_posix()
        name.encode()
    except UnicodeEncodeError:
        raise TaskFileError(f"{str(path)!r}: the name is not UTF-8; rename the file or folder") from None
    at, some = Place(path), False
    blocks = _blocks(_text_of(at), passage_chars, path.suffix.lower() in MARKDOWN, at)
    for line, title, text in _packed(blocks, passage_chars, path.stem):
        digest = hashlib.sha256(json.dumps([title, text]).encode()).hexdigest()[:16]
        some = True
        yield replace(at, line=line), Task(f"{name}#{digest}", title, (text,), ())
    if not some:
        at.fail("the file is empty: it has no text, apart from headings", "write something into it, or move it away")


def _text_of(at: Place) -> str:
    try:
        if not stat.S_ISREG(at.path.stat().st_mode):  # a pipe would keep us waiting
            at.fail("it is no regular file", "move it away")
        with at.path.open("rb") as stream:
            raw = read_rest(stream, at)
    except OSError as error:
        at.fail(f"the file can't be read ({error.strerror})", "check its permissions, or where the link leads")
    if raw.startswith(_WIDE):
        replace(at, line=1).fail("the file is UTF-16 (or UTF-32), not UTF-8", "save it as UTF-8")
    if (zero := raw.find(b"\0")) >= 0:
        replace(at, line=raw.count(b"\n", 0, zero) + 1).fail(
            f"byte {zero + 1} of the file is zero, so it is binary, or text in another encoding",
            "save it as UTF-8 text, or move it away",
        )
    try:
        return raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte, line_at = error.start, raw.rfind(b"\n", 0, error.start) + 1
        replace(at, line=raw.count(b"\n", 0, byte) + 1).fail(
            f"byte {byte - line_at + 1} of the line (byte {byte + 1} of the file) is not UTF-8",
            "save the file as UTF-8 (one in Latin-1 by: iconv -f latin1 -t utf-8)",
        )


class _Block(NamedTuple):
    """A paragraph, a part of a long one, or a heading."""

    line: int
    text: str
    heading: bool = False


def _blocks(document: str, limit: int, markdown: bool, at: Place) -> Iterator[_Block]:
    text, first, fenced = "", 1, False
    for number, line in enumerate(document.split("\n"), 1):
        bare, heading = line.strip(), ""
        if not bare:
            yield _Block(first, text)
            text = ""
            continue
        if markdown:
            if bare.startswith(_FENCE):
                fenced = not fenced
            elif not fenced and _UNDERLINE.fullmatch(bare) and text and "\n" not in text:
                heading, text = text.strip(), ""
            elif not fenced and len(bare) <= MAX_TITLE_CHARS and (match := _HEADING.fullmatch(bare)):
                heading = match[1]
        if heading and len(heading) <= MAX_TITLE_CHARS:
            yield _Block(first, text)
            yield _Block(number, heading, heading=True)
            text = ""
            continue
        text = heading or text  # too long for a title: text after all
        first = first if text else number
        text = f"{text}\n{line.rstrip()}" if text else line.rstrip()
        if len(text) > 2 * limit:
            *whole, text = _cut(text, limit)
            yield from (_Block(first, part) for part in whole)
            first = number
        if len(text) > max(MAX_WORD_CHARS, 2 * limit):
            replace(at, line=number).fail(
                f"more than {MAX_WORD_CHARS} characters without a space: this is no text", "take it out of the file"
            )
    yield _Block(first, text)


def _cut(text: str, limit: int) -> list[str]:
    """``text`` in parts of at most ``limit`` characters, where it has places to cut; the last part keeps its end."""
    parts, start = [], 0
    while len(text) - start > limit and (end := _end(text, start, limit)):
        parts.append(text[start:end].strip())
        start = end
        while text[start : start + 1].isspace():
            start += 1
    return [*parts, text[start:]]


def _end(text: str, start: int, limit: int) -> int:
    """Where the part from ``start`` ends: after a sentence, else after a word; 0 where there is no such place."""
    for gap, least in ((_SENTENCE, limit // 2), (_GAP, 0)):
        ends = [match.end() for match in gap.finditer(text, start + least, start + limit + 1)]
        if fits := next((end for end in reversed(ends) if len(text[start:end].rstrip()) <= limit), 0):
            return fits
    match = _GAP.search(text, start + limit)
    return match.end() if match else 0


def _packed(blocks: Iterator[_Block], limit: int, name: str) -> Iterator[tuple[int, str, str]]:
    """Line, title and text of each passage: as many paragraphs as fit, of one section."""
    title, text, first = name, "", 1
    for block in blocks:
        parts = [] if block.heading else [part.strip() for part in _cut(block.text, limit)]
        for part in filter(None, parts):
            if text and len(text) + 2 + len(part) > limit:
                yield from _told(first, title, text)
                text = ""
            first = first if text else block.line
            text = f"{text}\n\n{part}" if text else part
        if block.heading:
            yield from _told(first, title, text)
            title, text = block.text, ""
    yield from _told(first, title, text)


def _told(line: int, title: str, text: str) -> Iterator[tuple[int, str, str]]:
    """The passage, if there is a letter or digit in it: rules and rows of stars are no text."""
    if any(char.isalnum() for char in text):
        yield line, title, text
