"""A folder of text and Markdown files as passages: documents bring no questions, so their tasks have no probes.

Headings (Markdown's only) and blank lines are where a passage may end; a paragraph longer than a passage is cut after a
sentence, else after a word, never inside one. A paragraph that occurs again, in any file, is kept once.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import TaskFileError
from ..types import Task
from .formats import HEAD_BYTES, foreign
from .markdown import Block, blocks_of, without_data
from .places import Place, read_rest

MARKDOWN = (".md", ".markdown")
SUFFIXES = (".txt", *MARKDOWN)
MAX_WORD_CHARS = 2**16  # whatever is longer without a place to cut it is no text
SKIP = "set tasks.folder.skip_bad_files = true to leave out files that can't be read"

_SENTENCE = re.compile(r"[.!?…][\"')\]”’]*\s|[。！？][」』”’]*")
_GAP = re.compile(r"\s|[。！？；，、」』]")  # scripts without spaces have these


@dataclass
class LeftOut:
    """What a folder has and its passages don't.

    ``kinds``: how often which kind of thing; ``empty``: files without text; ``others``: files that are not read, by suffix;
    ``bad``: for each file that can't be read, where and why.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def told(self) -> list[str]:
        """Each part that is not empty as a phrase with its number, such as "3 tables"."""
        told = [f"{n} {kind}{_s(n)}" for kind, n in sorted(self.kinds.items()) if n]
        if self.empty:
            told.append(f"{len(self.empty)} file{_s(len(self.empty))} without any other text ({_some(self.empty)})")
        if n := self.others.total():
            suffixes = [f"{suffix or 'no suffix'}: {n}" for suffix, n in self.others.most_common()]
            told.append(f"{n} file{_s(n)} of kinds that are not read ({_some(suffixes)})")
        if self.bad:
            told.append(f"{len(self.bad)} file{_s(len(self.bad))} that can't be read ({_some(self.bad)})")
        return told


def find_documents(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """The text and Markdown files of a folder and those in it, by name; hidden ones (".x") are skipped, links followed.

    Files of other kinds are counted in ``left_out``.

    Raises:
        TaskFileError: there are none, a folder can't be read, or a link leads back to where it is.
    """
    left_out = left_out or LeftOut()
    found = []
    for path in _files(folder, ()):
        if path.suffix.lower() in SUFFIXES:
            found.append(path)
        else:
            left_out.others[path.suffix.lower()] += 1
    if not found:
        others = f"; there are {_some(left_out.told())}" if left_out.others else ""
        advice = "unpack or convert those that hold text, or name another folder" if others else "put some there, or name another"
        Place(folder).fail(f"no text file ({', '.join(SUFFIXES)}) in the folder{others}", advice)
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
        else:
            yield entry


def read_documents(
    folder: Path, passage_chars: int, left_out: LeftOut | None = None, *, skip_bad_files: bool = False
) -> Iterator[tuple[Place, Task]]:
    """Every passage of a folder's documents as a task without probes, with the place where it begins.

    A passage has at most ``passage_chars`` characters (a longer word stays whole). Its title is the nearest heading above it,
    or the file's name. Ids are the file's path in the folder and a hash of the passage: the same wherever the folder lies, and
    whatever else is in it, as long as no other file has one of its paragraphs. Hashes of all paragraphs are kept in memory.

    Args:
        folder: read with what is in it, by name.
        passage_chars: the longest passage, in characters.
        left_out: what the passages don't have of the folder is added here: paragraphs that occurred before (white space
            aside), what `markdown.blocks_of` leaves out, files without text, of other kinds, and bad ones.
        skip_bad_files: leave out files that can't be read, or are no UTF-8 text.

    Raises:
        TaskFileError: as `find_documents`; no file has text; or, after the last passage, files can't be read or are no UTF-8
            text, and are not to be skipped.
    """
    left_out = LeftOut() if left_out is None else left_out
    seen: set[bytes] = set()
    some = False
    for path in find_documents(folder, left_out):
        try:
            yield from (passages := _passages_of(folder, path, passage_chars, seen, left_out))
        except TaskFileError as error:
            left_out.bad.append(str(error))
            continue
        some = some or bool(passages)
    if left_out.bad and not skip_bad_files:
        more = len(left_out.bad) - 1
        others = f" ({more} more file{_s(more)} can't be read: {_some(left_out.bad[1:])})" if more else ""
        raise TaskFileError(f"{left_out.bad[0]}, or {SKIP}{others}")
    if not some:
        Place(folder).fail(
            f"no file has text: there are only headings and {_some(left_out.told())}", "write some, or name another folder"
        )


def _passages_of(folder: Path, path: Path, passage_chars: int, seen: set[bytes], left_out: LeftOut) -> list[tuple[Place, Task]]:
    """One document's passages; ``seen`` and ``left_out`` are brought up to date.

    Raises:
        TaskFileError: the file can't be opened or read, is no regular file, is binary or not UTF-8.
    """
    try:
        name = path.relative_to(folder).as_posix()
        name.encode()
    except UnicodeEncodeError:
        raise TaskFileError(f"{str(path)!r}: the name is not UTF-8; rename the file or folder") from None
    at, kinds = Place(path), Counter[str]()
    document = _text_of(at)
    markdown = path.suffix.lower() in MARKDOWN
    blocks = blocks_of(document, kinds) if markdown else _paragraphs(without_data(document, kinds))
    parts = [part for block in blocks for part in _parts(block, passage_chars, at)]
    left_out.kinds += kinds
    if not any(not part.heading and _has_word(part.text) for part in parts):
        left_out.empty.append(name)
        return []
    tasks = []
    for line, title, text in _packed(_kept_once(parts, seen, left_out.kinds), passage_chars, path.stem):
        digest = hashlib.sha256(json.dumps([title, text]).encode()).hexdigest()[:16]
        tasks.append((replace(at, line=line), Task(f"{name}#{digest}", title, (text,), ())))
    return tasks


def _text_of(at: Place) -> str:
    """A file's text; a newline ends each line, whatever the file has."""
    try:
        if not stat.S_ISREG(at.path.stat().st_mode):  # a pipe would keep us waiting
            at.fail("it is no regular file", "move it away")
        with at.path.open("rb") as stream:
            raw = read_rest(stream, at)
    except OSError as error:
        at.fail(f"the file can't be read ({error.strerror})", "check its permissions, or where the link leads")
    if found := foreign(raw[:HEAD_BYTES]):
        what, advice = found
        replace(at, line=1).fail(f"the file is {what}", f"{advice}, or move it away")
    if (zero := raw.find(b"\0")) >= 0:
        replace(at, line=raw.count(b"\n", 0, zero) + 1).fail(
            f"byte {zero + 1} of the file is zero, so it is binary, or text in another encoding",
            "save it as UTF-8 text, or move it away",
        )
    try:
        return raw.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        byte, line_at = error.start, raw.rfind(b"\n", 0, error.start) + 1
        replace(at, line=raw.count(b"\n", 0, byte) + 1).fail(
            f"byte {byte - line_at + 1} of the line (byte {byte + 1} of the file) is not UTF-8",
            "save the file as UTF-8 (one in Latin-1 by: iconv -f latin1 -t utf-8)",
        )


def _paragraphs(document: str) -> Iterator[Block]:
    """What blank lines separate."""
    lines: list[str] = []
    for number, line in enumerate([*document.split("\n"), ""], 1):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield Block(number - len(lines), "\n".join(lines))
            lines = []


def _parts(block: Block, limit: int, at: Place) -> Iterator[Block]:
    """A heading, or a paragraph in parts that fit into a passage."""
    parts = [block.text] if block.heading else _cut(block.text, limit)
    for part in map(str.strip, parts):
        if len(part) > max(MAX_WORD_CHARS, 2 * limit):
            line = block.line + block.text.count("\n", 0, block.text.find(part))
            replace(at, line=line).fail(
                f"more than {MAX_WORD_CHARS} characters without a space: this is no text", "take it out of the file"
            )
        if part:
            yield block._replace(text=part)


def _kept_once(parts: list[Block], seen: set[bytes], left_out: Counter[str]) -> Iterator[Block]:
    """The parts without those that were seen before, which are counted."""
    for part in parts:
        if not part.heading and _has_word(part.text):
            key = hashlib.sha256(" ".join(part.text.split()).encode()).digest()[:16]
            if key in seen:
                left_out["repeated paragraph"] += 1
                continue
            seen.add(key)
        yield part


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


def _packed(parts: Iterator[Block], limit: int, name: str) -> Iterator[tuple[int, str, str]]:
    """Line, title and text of each passage: as many paragraphs as fit, of one section."""
    title, text, first = name, "", 1
    for part in parts:
        if text and (part.heading or len(text) + 2 + len(part.text) > limit):
            yield from _told(first, title, text)
            text = ""
        if part.heading:
            title = part.text
        else:
            first = first if text else part.line
            text = f"{text}\n\n{part.text}" if text else part.text
    yield from _told(first, title, text)


def _told(line: int, title: str, text: str) -> Iterator[tuple[int, str, str]]:
    """The passage, if there is a letter or digit in it: rules and rows of stars are no text."""
    if _has_word(text):
        yield line, title, text


def _has_word(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")


def _s(n: int) -> str:
    return "" if n == 1 else "s"
