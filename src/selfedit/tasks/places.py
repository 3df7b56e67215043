"""Input files: strict JSON, checked against pydantic models; every complaint names the place (file, line, field)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, from_json

from ..errors import TaskFileError
from .formats import BROKEN, HEAD_BYTES, PARQUET, foreign, is_web_page, unpacked

MAX_BYTES = 256 * 2**20  # of a JSON document or a line: it is parsed at once, at several times its size in memory
_PART = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # not JSON, but editors on Windows write one
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
# What is wrong and what to do, by the type of a pydantic error.
_PROBLEMS = {
    "missing": "the field is missing{there}; add it",
    "string_type": "expected text, found {found}; give a text, and put it in quotes",
    "bool_type": "expected true or false, found {found}; write one of them, or leave the item out",
    "int_type": "expected a whole number, found {found}; number from 0",
    "float_type": "expected a number, found {found}; write it without quotes, or leave the item out",
    "list_type": "expected a list, found {found}; put it in [ ]",
    "model_type": 'expected an object, found {found}; write {{"field": ...}} here',
    "too_short": "the list is empty; give at least one item, or leave out what it belongs to",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: the file, the line (JSONL) and the field, as ``probes[2].answer``."""

    path: Path
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.path}{line}" + (f", {self.field}" if self.field else "")

    def of(self, *names: str | int) -> Place:
        """The place of a field (by its name) or an item (by its number) of the value here."""
        parts = [f"[{name}]" if isinstance(name, int) else f".{name}" for name in names]
        return Place(self.path, self.line, (self.field + "".join(parts)).removeprefix("."))

    def fail(self, problem: str, advice: str) -> NoReturn:
        """Raise a TaskFileError that says where, what, and what to do."""
        raise TaskFileError(f"{self}: {problem}; {advice}")


class Form(BaseModel):
    """Base of what is read from JSON: exact types; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "the text is empty; fill it in, or leave out what it belongs to")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
AnyForm = TypeVar("AnyForm", bound=Form)


def checked(form: type[AnyForm], value: Any, at: Place) -> AnyForm:
    """``value`` as the form has it.

    Raises:
        TaskFileError: a field is missing or of the wrong type; names the first such field.
    """
    try:
        return form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = first["msg"]  # ours say themselves what to do
        if first["type"] in _PROBLEMS:
            found = first["input"]
            there = f" (there are: {', '.join(list(found)[:6])})" if isinstance(found, dict) and found else ""
            said = _PROBLEMS[first["type"]].format(found=_KINDS.get(type(found), "a number"), there=there)
        raise TaskFileError(f"{at.of(*first['loc'])}: {said}") from None


@contextmanager
def opened(path: Path, parquet: bool = False) -> Iterator[BufferedReader]:
    """The file, to be read; what is compressed with gzip, bzip2 or xz is decompressed meanwhile.

    Raises:
        TaskFileError: the file can't be opened, or it begins like no text in UTF-8 (`formats.foreign`; a Parquet file is let
            through with ``parquet``).
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{str(path)!r} can't be opened ({error}); check the path and its permissions") from error
    with file:
        try:
            stream = unpacked(file)
            head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
        except BROKEN as error:
            _unreadable(error, Place(path))
        if (found := foreign(head)) and not (parquet and head.startswith(PARQUET)):
            Place(path).fail(f"the file is {found[0]}", found[1])
        if is_web_page(head):
            Place(path).fail("the file is a web page, perhaps one that asks to sign in", "download the file again")
        yield stream


def _unreadable(error: Exception, at: Place) -> NoReturn:
    at.fail(f"the file can't be read to its end ({error})", "it may be damaged or truncated: fetch or write it again")


def read_rest(stream: IO[bytes], at: Place) -> bytes:
    """What has not been read of a file yet; raises TaskFileError where it is too large to be parsed at once."""
    try:
        parts = [part := stream.read(_PART)]  # not all at once: a reader sets aside as much as it is asked for
        while part and len(parts) * _PART <= MAX_BYTES:
            parts.append(part := stream.read(_PART))
        rest = b"".join(parts)
    except BROKEN as error:
        _unreadable(error, at)
    if len(rest) > MAX_BYTES:
        at.fail(
            f"the file is larger than the {MAX_BYTES / 2**20:g} MiB that are parsed at once",
            "divide it, or convert it to JSONL (tasks), which is read line by line",
        )
    return rest


def json_lines(stream: IO[bytes], at: Place) -> Iterator[tuple[Place, bytes]]:
    """The lines that are not blank, each with its place; only one of them is in memory."""
    number = 0
    while line := _line(stream, at):
        number += 1
        here = replace(at, line=number)
        if len(line) > MAX_BYTES:
            here.fail(f"the line is longer than {MAX_BYTES / 2**20:g} MiB", "convert it to JSONL, one task per line")
        if line.strip(_BYTE_ORDER_MARK + b" \t\r\n"):
            yield here, line


def _line(stream: IO[bytes], at: Place) -> bytes:
    try:
        return stream.readline(MAX_BYTES + 1)
    except BROKEN as error:
        _unreadable(error, at)


def parsed(raw: bytes, at: Place) -> Any:
    """The JSON value of ``raw``, strictly: UTF-8, without NaN and Infinity. Complaints name line and column."""
    try:
        return from_json(raw.removeprefix(_BYTE_ORDER_MARK), allow_inf_nan=False)
    except ValueError as error:
        ((problem, line, column),) = re.findall(r"(.*) at line (\d+) column (\d+)", str(error))
        place = at if at.line else replace(at, line=int(line))
        place.fail(f"the JSON breaks at column {column} ({problem})", _advice(raw, problem, at.line in (None, 1)))


def _advice(raw: bytes, problem: str, begins: bool) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8: save the file as UTF-8"
    if problem.startswith("EOF"):
        return "it looks truncated: fetch or write it again"
    if problem.endswith("hex escape"):
        return "remove half a surrogate pair (\\ud800 to \\udfff), which UTF-8 can't encode"
    if begins and raw.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] not in (b"{", b"["):
        return "it does not begin like JSON: convert the file (CSV, YAML and others are not read) to JSONL, one task per line"
    return "correct it there (JSON has no NaN or Infinity; JSONL has one whole object per line)"
