"""Input files: strict JSON, checked against pydantic models; every complaint names the place (file, line, field)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, from_json

from ..errors import TaskFileError

MAX_BYTES = 256 * 2**20  # of a JSON document or a line: it is parsed at once, at several times its size in memory
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # not JSON, but editors on Windows write one
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
# What is wrong and what to do, by the type of a pydantic error.
_PROBLEMS = {
    "missing": "the field is missing; add it",
    "string_type": "expected text, found {found}; give a text, and put it in quotes",
    "bool_type": "expected true or false, found {found}; write one of them, or leave the item out",
    "int_type": "expected a whole number, found {found}; number from 0",
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
            said = _PROBLEMS[first["type"]].format(found=_KINDS.get(type(first["input"]), "a number"))
        raise TaskFileError(f"{at.of(*first['loc'])}: {said}") from None


def opened(path: Path) -> IO[bytes]:
    """The file, to be read; raises TaskFileError where that can't be."""
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{str(path)!r} can't be opened ({error}); check the path and its permissions") from error


def read_rest(stream: IO[bytes], at: Place) -> bytes:
    """What has not been read of a file yet; raises TaskFileError where the file is too large to be parsed at once."""
    if os.fstat(stream.fileno()).st_size > MAX_BYTES:
        at.fail(
            f"the file is larger than the {MAX_BYTES / 2**20:g} MiB that are parsed at once",
            "divide it, or convert it to JSONL (tasks), which is read line by line",
        )
    return stream.read()


def json_lines(stream: IO[bytes], at: Place) -> Iterator[tuple[Place, bytes]]:
    """The lines that are not blank, each with its place; only one of them is in memory."""
    number = 0
    while line := stream.readline(MAX_BYTES + 1):
        number += 1
        here = replace(at, line=number)
        if len(line) > MAX_BYTES:
            here.fail(f"the line is longer than {MAX_BYTES / 2**20:g} MiB", "convert it to JSONL, one task per line")
        if line.strip(_BYTE_ORDER_MARK + b" \t\r\n"):
            yield here, line


def parsed(raw: bytes, at: Place) -> Any:
    """The JSON value of ``raw``, strictly: UTF-8, without NaN and Infinity. Complaints name line and column."""
    try:
        return from_json(raw.removeprefix(_BYTE_ORDER_MARK), allow_inf_nan=False)
    except ValueError as error:
        ((problem, line, column),) = re.findall(r"(.*) at line (\d+) column (\d+)", str(error))
        place = at if at.line else replace(at, line=int(line))
        place.fail(f"the JSON breaks at column {column} ({problem})", _advice(raw, problem))


def _advice(raw: bytes, problem: str) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8: save the file as UTF-8"
    if problem.startswith("EOF"):
        return "it looks truncated: fetch or write it again"
    if problem.endswith("hex escape"):
        return "remove half a surrogate pair (\\ud800 to \\udfff), which UTF-8 can't encode"
    return "correct it there (JSON has no NaN or Infinity; JSONL has one whole object per line)"
