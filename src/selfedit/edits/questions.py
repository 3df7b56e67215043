"""Questions that stand in an edit's lines."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..types import Probe

# As `edit_lines` writes a question with its answer.
_PAIR = re.compile(r"Question: (?P<question>.*?\S)\s*Answer: (?P<answer>.*\S)")


def question_of(line: str) -> Probe | None:
    """The question and answer that a line of an edit states, or None where it is no such pair."""
    found = _PAIR.fullmatch(line.strip())
    return None if found is None else Probe(found["question"].strip(), found["answer"].strip(), kind="edit")


def questions_of(lines: Iterable[str]) -> tuple[Probe, ...]:
    """The different questions of an edit's lines, each with the first answer that is given to it."""
    probes = (probe for line in lines if (probe := question_of(line)))
    return tuple({probe.question: probe for probe in reversed(list(probes))}.values())[::-1]
