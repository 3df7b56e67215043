"""What a term of a reward is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...engine.base import AdapterBank
from ...types import Adapter, Answer, Task

# A term's value, or None and why there is none.
Valued = tuple[float | None, str]


@dataclass(frozen=True)
class Answered:
    """A task's graded answers, and who gave them: member ``member`` of ``bank`` on top of ``on``, or ``on`` alone."""

    task: Task
    answers: Sequence[Answer]
    on: Adapter | None
    bank: AdapterBank | None = None
    member: int = 0


class Term(Protocol):
    """A term of the reward, made from the section ``[reward]`` and the engine that answers: ``Kind(settings, engine)``.

    Its own settings, if any, are the pydantic model ``Settings``.
    """

    def value(self, answered: Answered) -> Valued:
        """What these answers are worth; higher is better."""
        ...
