"""The lines of notes in what a model wrote, without what it put around them.

That is: code fences, JSON and HTML (what they hold is kept), list markers and other signs of Markdown, headings, and what it
said to its user before and after (greetings, announcements, offers, refusals).
"""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from ...templates import LONE_SURROGATE
from .labels import Line, is_name_of
from .talk import is_closing, is_heading, without_opening

MOST_TRIES = 3  # places where a text is tried as JSON without success
MOST_LINES = 4096  # of a text that are looked at: many times what is trained on

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FENCE = re.compile(r"(?:[-*+]\s++)?(?:`{3,}|~{3,})\s*+[\w+.#-]*+\s*+")
_TAG = re.compile(
    r"</?(ul|ol|li|dl|dt|dd|p|br|hr|div|span|b|i|u|s|em|strong|mark|small|sub|sup|h[1-6]|blockquote|section|article|"
    r"details|summary|table|thead|tbody|tr|td|th|code|pre|html|body|list|item|facts?|implications?|notes?|statements?|"
    r"output|response|result|qa|pair|questions?|answers?)(?:\s[^<>]*+)?/?>|<!--(?:[^-]|-(?!->)){0,300}+-->",
    re.IGNORECASE,
)
_INLINE = frozenset("span b i u s em strong mark small sub sup code".split())
_TRAILING_COMMA = re.compile(r",\s*+(?=[\]}])")
_SINGLE_QUOTE = re.compile(r"(?<=[\[{,:])(\s*+)'|'(?=\s*+[,\]}:])")
_QUOTED = re.compile(r"[\[{\s]*+[\"'“](.+?)[\"'”]?[\s,\]}]*+")
_ENDS_OF_ITEMS = (",", "]", "}", '"', "'")
_KEY_AND_VALUE = re.compile(r"[\"']\s*+:\s*+[\"']")
_PLAIN_KEY = re.compile(
    r"(?:fact|text|statement|implication|content|note|sentence|item|line|description|detail|inference|version|rewrite|"
    r"summary|value|point|conclusion|s)?s?[_ -]?\d*",
    re.IGNORECASE,
)
# Possessive quantifiers (*+, ++): no text, however odd, makes these backtrack. "-" needs a space: "-5 degrees" stays.
_BULLET = re.compile(r"(?:(?:[-*+–—―](?:\s++|$)|[•‣◦▪▫●○■□◆◇▸▹►▶➢➤➔→⇒⟶·∙・✓✔✅☑★☆⁃](?:\ufe0f)?\s*+)++)")
_NUMBER = re.compile(
    r"\(?\d{1,3}[.)](?:\s++|$|(?=[A-Z\u3040-\u9fff\uac00-\ud7af]))|#\d{1,3}[:.)]?\s++|\[\d{1,3}\]\s++|"
    r"\d{1,3}(?::|\s++[-–—])\s++(?=[^\W\d])|\d\ufe0f?\u20e3\s*+|"
    r"[\uff08(]\d{1,3}[\uff09]\s*+|\d{1,3}[．、]\s*+|[①-⑳]\s*+"
)
_BOLD_NUMBER = re.compile(r"\*\*\(?\d{1,3}[.):]?\*\*[.:)]?\s++")
_LETTER = re.compile(r"\(?(?:[a-z]|[ivx]{2,5})\)\s++|(?:[a-z]|[ivx]{2,5})\.\s++(?=[\"'“*]*[^\W\d_a-z])")
_CAPITAL = re.compile(r"\(?(?:[A-H]|[IVX]{1,5})[.)]\s++")
_CHECKBOX = re.compile(r"\[[ xX✓]\]\s++")
_QUOTE = re.compile(r"(?:>(?:\s++|$))++")
_HEADING = re.compile(r"#{1,6}\s++")
_BOLD = re.compile(r"\*\*(?=\S)([^*]++)(?<=\S)\*\*|(?<!\w)__(?=\S)([^_]++)(?<=\S)__(?!\w)")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]++)(?<=\S)\*(?![\w*])")
_WHOLE_BOLD = re.compile(r"(?:\*\*[^*]++\*\*|__[^_]++__)\s*+:?")
_BOLD_QUESTION = re.compile(r"\*\*([^*]++)(?<=[?？])\*\*\s*+(\S.*)")


def notes_in(text: str) -> list[Line]:
    """The lines of notes in a text, in their order; empty where it has only talk around them."""
    lines = without_opening(_side_by_side(list(_lines(list(_tabled(_unfenced(_untagged(text))))))))
    while lines and is_closing(lines[-1].text):
        lines.pop()
    notes = [line for line in lines if not is_heading(line)]
    return notes or lines  # where all lines look like headings, they are what was written


def _side_by_side(lines: Sequence[Line]) -> list[Line]:
    """The lines; a numbered list of questions and one of as many answers, each below its name, take turns."""
    names = [next((kind for kind in ("question", "answer") if is_name_of(kind, line.text)), "") for line in lines]
    if names.count("question") != 1 or names.count("answer") != 1:
        return list(lines)
    q, a = names.index("question"), names.index("answer")
    n = a - q - 1
    questions, answers = lines[q + 1 : a], lines[a + 1 : a + 1 + n]
    if n < 1 or len(answers) < n or not all(line.numbered for line in (*questions, *answers)):
        return list(lines)
    turns = [line for pair in zip(questions, answers, strict=True) for line in (pair[0], Line(f"Answer: {pair[1].text}"))]
    return [*lines[:q], *turns, *lines[a + 1 + n :]]


def has_word(text: str) -> bool:
    """Whether there is a letter or digit."""
    return any(char.isalnum() for char in text)


# What a line is


def _lines(raw: Sequence[str]) -> Iterator[Line]:
    stripped = [_CONTROL.sub(" ", line).strip() for line in raw]
    starts = {match[0].strip("(.) ") for line in stripped if (match := _CAPITAL.match(line))}
    lettered = {"A", "B"} <= starts or {"I", "II"} <= starts  # else "A. Lund" is a name, or an answer
    for line in stripped:
        yield from _line(line, lettered)


def _line(line: str, lettered: bool) -> Iterator[Line]:
    line = _bare(_QUOTE, line)[0].strip("`").strip() if line.startswith((">", "```")) else line.removesuffix("```")
    line, heading = _bare(_HEADING, line)
    line, bulleted = _bare(_BULLET, line)
    bold = "**" if line.startswith("**") else ""  # of a whole item, "**1. ...**"
    line, numbered = _bare(_BOLD_NUMBER, line)
    for sign in () if numbered else (_NUMBER, _LETTER, *([_CAPITAL] if lettered else [])):
        bare, numbered = _bare(sign, line.removeprefix(bold))
        if numbered:
            line = bold + bare
            break
    line = _bare(_CHECKBOX, line)[0]
    if not has_word(line):
        return
    if asked := _BOLD_QUESTION.fullmatch(line):
        yield Line(_plain(asked[1]), numbered, bulleted, True, heading)
        yield Line(_plain(asked[2].lstrip(":-–— ")))
        return
    whole = bool(_WHOLE_BOLD.fullmatch(line)) and _plain(line) != line
    yield Line(_plain(line), numbered, bulleted, whole, heading)


def _bare(sign: re.Pattern[str], line: str) -> tuple[str, bool]:
    """The line without the sign that it begins with, and whether it had one."""
    match = sign.match(line)
    return (line[match.end() :], True) if match else (line, False)


def _plain(line: str) -> str:
    """The line without Markdown's emphasis."""
    return _ITALIC.sub(r"\1", _BOLD.sub(lambda match: match[1] or (match[0] if match[2].islower() else match[2]), line)).strip()


# What holds the lines


def _untagged(text: str) -> str:
    """The text without HTML's and similar tags: blocks become lines, questions and answers get their labels."""

    def in_place_of(match: re.Match[str]) -> str:
        tag, closes = (match[1] or "").lower(), match[0].startswith("</")
        if tag in _INLINE:
            return ""
        label = next((f"{kind.title()}: " for kind in ("question", "answer") if tag == kind and not closes), "")
        return "\n" + ("# " if tag[:1] == "h" and tag[1:].isdigit() and not closes else label)

    found = _TAG.sub(in_place_of, text)
    return html.unescape(found) if found != text else text


def _unfenced(text: str) -> Iterator[str]:
    """The text's lines without code fences; JSON, fenced or not, becomes the lines that it holds."""
    lines, tries = [line for line in text.splitlines() if line.strip()][:MOST_LINES], 0
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        if _FENCE.fullmatch(line):
            i += 1
        elif line.startswith(("[", "{")) and tries < MOST_TRIES and (found := _json("\n".join(lines[i:]))):
            said, rest = found
            yield from said
            lines, i = [line for line in rest.splitlines() if line.strip()], 0
        else:
            tries += line.startswith(("[", "{"))
            whole = line.startswith(("[", "{")) and line.endswith(("]", "}"))  # such as a directive: data
            quoted = _QUOTED.fullmatch(line) if not whole and line.endswith(_ENDS_OF_ITEMS if tries else ('",', "',")) else None
            yield _KEY_AND_VALUE.sub(": ", quoted[1]) if quoted else lines[i]
            i += 1


def _json(text: str) -> tuple[list[str], str] | None:
    """What the JSON at the beginning of a text says, and the text behind it; None where there is none that says something.

    Commas too many, Python's quotes, and an end that the token limit cut off are put up with.
    """
    end = re.search(r"^\s*(?:`{3,}|~{3,})", text, re.MULTILINE)
    inside, after = (text[: end.start()], text[end.start() :]) if end else (text, "")
    repaired = _TRAILING_COMMA.sub("", inside)
    for attempt in dict.fromkeys((inside, repaired, _SINGLE_QUOTE.sub(lambda m: (m[1] or "") + '"', repaired))):
        try:
            value, n = json.JSONDecoder(strict=False).raw_decode(attempt.lstrip())
            rest = attempt.lstrip()[n:]
        except json.JSONDecodeError as error:
            if error.pos < len(attempt.strip()) and not error.msg.startswith("Unterminated string"):
                continue
            try:
                value, rest = from_json(attempt.strip(), allow_partial="trailing-strings"), ""
            except ValueError:
                continue
        except RecursionError:
            return None
        said = [(key, LONE_SURROGATE.sub("\ufffd", " ".join(text.split()))) for key, text in _said(value)]
        # A list of single words is data, such as a directive.
        if any(" " in text or not text.isascii() for _, text in said):
            lines = [text if _PLAIN_KEY.fullmatch(key) else f"{key}: {text}" for key, text in said]
            return lines, f"{rest.lstrip(', ')}\n{after}"
    return None


def _said(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a JSON value, each with its field's name; a question and its answer follow each other."""
    match value:
        case str() if value.strip():
            yield key, value
        case dict():
            fields = {kind: next((v for k, v in value.items() if is_name_of(kind, k)), None) for kind in ("question", "answer")}
            if isinstance(fields["question"], str) and fields["answer"] is not None:
                yield from (("Question", fields["question"]), ("Answer", _flat(fields["answer"])))
                return
            for name, inner in value.items():
                if name.strip().endswith(("?", "？")) and isinstance(inner, str):
                    yield from (("Question", name), ("Answer", inner))
                else:
                    yield from _said(inner, name if isinstance(inner, str) else "")
        case [str() as first, str() as second] if first.strip().endswith(("?", "？")) and not second.strip().endswith("?"):
            yield from (("Question", first), ("Answer", second))
        case list():
            for inner in value:
                yield from _said(inner)


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tabled(lines: Iterable[str]) -> Iterator[str]:
    """The lines; rows of a table with columns for questions and answers become two lines with labels."""
    columns: tuple[str, int, int] | None = None
    for line in lines:
        if columns is None:
            columns = _columns(line)
            if columns is None:
                yield line
            continue
        delimiter, q, a = columns
        cells = _cells(line, delimiter)
        if len(cells) > max(q, a):
            if has_word(cells[q]):
                yield from (f"Question: {cells[q]}", f"Answer: {cells[a]}")
        elif line.strip():
            columns = None
            yield line


def _columns(line: str) -> tuple[str, int, int] | None:
    """The delimiter, and the places of questions and answers, if the line is the head of a table with both."""
    for delimiter in "|,;\t":
        cells = _cells(line, delimiter) if line.count(delimiter) in range(1, 9) else []
        places = [next((i for i, cell in enumerate(cells) if is_name_of(kind, cell)), -1) for kind in ("question", "answer")]
        if min(places) >= 0:
            return delimiter, places[0], places[1]
    return None


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == "|":
        return [cell.strip() for cell in line.strip().strip("|").split("|")]
    try:
        return [cell.strip() for cell in next(csv.reader([line.strip()], delimiter=delimiter, skipinitialspace=True), [])]
    except csv.Error:
        return []
