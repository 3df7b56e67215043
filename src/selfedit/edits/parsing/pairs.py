"""Questions with their answers in what a model wrote, and whether a line says a question word for word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .labels import Line, answer_label, parts_of, question_label

# As `paired` makes such a line; the second label may be written as models like to.
_PAIR = re.compile(r"Question:\s++(\S.*?)\s++\**+Answer\s*+\d*+\s*+\**+:\s*+\**+\s*+(\S.*)", re.IGNORECASE)
_LABEL = re.compile(r"\b(?:question|answer)\s*+\d*+\s*+\**+:", re.IGNORECASE)
_ANSWERED = re.compile(r"\banswer\s*+\d*+\s*+\**+:", re.IGNORECASE)
_OPTION = re.compile(r"[\s*]*+\(?[bB][.)]\s")
_WORD = re.compile(r"\w+")


def paired(lines: Sequence[Line], max_chars: int) -> Iterator[str]:
    """The texts of the lines, where a question and its answer become one line: "Question: ... Answer: ...".

    A question has a label (`labels.question_label`), or ends with a question mark; its answer has a label and stands on the next
    line, or further on the same one, of which ``max_chars`` characters are looked at. Below a question that is numbered, bold or
    a heading, the answer needs no label. A label that stands alone on its line belongs to the next one.
    """
    i = 0
    while i < len(lines):
        line, i = lines[i], i + 1
        asked = question_label(line.text)
        if asked and not (asked.sure or _answers(lines, i)):
            asked = None
        text = asked.rest if asked else line.text
        if asked and not text and _goes_on(lines, i):
            text, i = lines[i].text, i + 1
        numbered = line.numbered or bool(asked and asked.numbered)
        evident = numbered or line.bold or line.heading
        inside = _ANSWERED.search(text, 0, max_chars)
        if parts := parts_of(text, max_chars) if evident or (asked and not inside) else None:
            yield _pair(*parts)
        elif inside or not (asked or text.endswith(("?", "？"))):
            yield f"Question: {text}".rstrip() if asked else text
        elif _answers(lines, i):
            label = answer_label(lines[i].text)
            answer, i = label.rest if label else "", i + 1
            if not answer and _goes_on(lines, i):
                answer, i = lines[i].text, i + 1
            yield _pair(text, answer)
        elif evident and text and _is_answer(lines, i):
            answer, i = lines[i].text, i + 1
            yield _pair(text, answer)
        else:
            yield f"Question: {text}".rstrip() if asked else text


def _pair(question: str, answer: str) -> str:
    return f"Question: {question} Answer: {answer}".rstrip()


def _answers(lines: Sequence[Line], i: int) -> bool:
    """Whether line ``i`` has an answer's label; "A. ..." before "B. ..." is the first of several to choose from."""
    label = answer_label(lines[i].text) if i < len(lines) else None
    return bool(label and (label.sure or i + 1 == len(lines) or not _OPTION.match(lines[i + 1].text)))


def _goes_on(lines: Sequence[Line], i: int) -> bool:
    """Whether line ``i`` can belong to a label that stands alone on the line before."""
    return i < len(lines) and not lines[i].marked and not _is_labelled(lines[i].text)


def _is_answer(lines: Sequence[Line], i: int) -> bool:
    """Whether line ``i``, which has no label, answers the question before: no question, and no item but a single one."""
    if i == len(lines) or lines[i].numbered or lines[i].heading or lines[i].text.endswith(("?", "？")):
        return False
    after = lines[i + 1] if i + 1 < len(lines) else None
    if lines[i].bulleted and after and after.bulleted:
        return False
    return not _is_labelled(lines[i].text) and not (after and _answers(lines, i + 1))


def _is_labelled(text: str) -> bool:
    asked, answered = question_label(text), answer_label(text)
    return bool((asked and asked.sure) or (answered and answered.sure))


def question_and_answer(line: str) -> tuple[str, str] | None:
    """The question and the answer of a line "Question: ... Answer: ..."; None where it holds no such pair, or several."""
    match = _PAIR.fullmatch(line.strip())
    if match is None or any(_LABEL.search(part) for part in match.groups()):
        return None
    question, answer = (part.strip().strip("*").strip() for part in match.groups())
    return (question, answer) if _words(question).strip() and _words(answer).strip() else None


def says(line: str, question: str) -> bool:
    """Whether the question's words stand in the line, one after another; case, white space and punctuation say nothing."""
    words = _words(question)
    return bool(words.strip()) and words in _words(line)


def _words(text: str) -> str:
    """The words with a space around each, so that only whole words are found."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "
