"""Questions with their answers in what a model wrote, and whether a line says a question word for word."""

from __future__ import annotations

import re

# As `edit_lines` makes such a line; the second label may be written as models like to.
_PAIR = re.compile(r"Question:\s++(\S.*?)\s++\**+Answer\s*+\d*+\s*+\**+:\s*+\**+\s*+(\S.*)", re.IGNORECASE)
_LABEL = re.compile(r"\b(?:question|answer)\s*+\d*+\s*+\**+:", re.IGNORECASE)
_WORD = re.compile(r"\w+")


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
