"""JSON values with their place (file, line, field), so that every complaint says where."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ..errors import TaskFileError

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*+"|(NaN|-?Infinity)', re.DOTALL)
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: the file, the line (JSONL) and the field, as ``probes[2].answer``.

    ``offset``: the byte of the file at which a line that holds a whole task begins.
    """

    path: Path
    line: int | None = None
    field: str = ""
    offset: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.path}{line}" + (f", {self.field}" if self.field else "")

    def of(self, name: str) -> Place:
        """The place of a field of the object here."""
        return Place(self.path, self.line, f"{self.field}.{name}" if self.field else name)

    def item(self, index: int) -> Place:
        """The place of an item of the list here."""
        return Place(self.path, self.line, f"{self.field}[{index}]")

    def fail(self, problem: str, advice: str) -> NoReturn:
        """Raise a TaskFileError that says where, what, and what to do."""
        raise TaskFileError(f"{self}: {problem}; {advice}")


def optional_text(record: dict[str, Any], name: str, at: Place) -> str:
    """A text that may be absent (or null), then ""."""
    return "" if record.get(name) is None else text_at(record[name], at.of(name), may_be_empty=True)


def required_text(record: dict[str, Any], name: str, at: Place) -> str:
    """A text that must be there and not be blank."""
    if name not in record:
        at.of(name).fail("the field is missing", f"add {name!r} with a text")
    return text_at(record[name], at.of(name))


def text_at(value: Any, at: Place, may_be_empty: bool = False) -> str:
    """``value`` if it is a text that UTF-8 can hold, not blank unless it may be."""
    if not isinstance(value, str):
        advice = "put it in quotes" if isinstance(value, int | float) else "give a text"
        at.fail(f"expected text, found {named(value)}", advice)
    if not may_be_empty and not value.strip():
        at.fail("the text is empty", "fill it in, or leave the task or question out")
    if _SURROGATE.search(value):
        at.fail("the text holds half a surrogate pair (\\ud800 to \\udfff), which no UTF-8 can", "remove it")
    return value


def object_at(value: Any, at: Place) -> dict[str, Any]:
    """``value`` if it is a JSON object."""
    if not isinstance(value, dict):
        at.fail(f"expected an object, found {named(value)}", 'write {"field": ...} here')
    return value


def required_list(record: dict[str, Any], name: str, at: Place, least: int = 0) -> list[Any]:
    """A list that must be there, of at least ``least`` items."""
    here = at.of(name)
    if name not in record:
        here.fail("the field is missing", f"add {name!r} with a list")
    value = record[name]
    if not isinstance(value, list):
        here.fail(f"expected a list, found {named(value)}", "put it in [ ]")
    if len(value) < least:
        here.fail("the list is empty", "give at least one item, or leave out what it belongs to")
    return value


def named(value: Any) -> str:
    """What kind of JSON value it is, in plain words."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def decoded(raw: bytes, at: Place) -> str:
    """``raw`` as UTF-8 text; a complaint names the line (that of ``at``, else counted) and the byte in it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = at.line or raw.count(b"\n", 0, error.start) + 1
        byte = error.start - raw.rfind(b"\n", 0, error.start)
        replace(at, line=line).fail(f"byte {byte} of the line is not UTF-8", "save the file as UTF-8")


def parsed(text: str, at: Place) -> Any:
    """The JSON value of ``text``, strictly: NaN and Infinity are refused. Complaints name line and column."""

    def refuse(constant: str) -> NoReturn:
        spots = (match.start() for match in _STRING_OR_CONSTANT.finditer(text) if match[1])
        line, column = _line_and_column(text, next(spots, 0))
        spot = at if at.line else replace(at, line=line)
        spot.fail(f"{constant} at column {column} is not JSON", "replace it by a value, or drop the field")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        spot = at if at.line else replace(at, line=error.lineno)
        rest = text[error.pos :].rstrip()  # nothing, or the first letters of a word
        ended = any(word.startswith(rest) for word in ("true", "false", "null")) or error.msg.startswith("Unterminated")
        problem = f"the JSON breaks at column {error.colno} ({error.msg})"
        if ended:
            spot.fail(f"{problem}: the file or line ends too early", "it looks truncated; fetch or write it again")
        spot.fail(problem, "mend it there; JSONL holds one whole object a line")
    except RecursionError:
        at.fail("the JSON is nested too deeply", "a task needs five levels at most")
    except ValueError as error:
        if isinstance(error, TaskFileError):
            raise
        at.fail(f"the JSON can't be read ({error})", "mend the number")


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
