"""The rung `in_context`."""

from __future__ import annotations

from ..ladder import Ladder, Rung


class InContext(Rung):
    """The base with the passage in view: what reading gives, without learning."""

    label = "passage in the prompt"
    writes = False
    trains = False
    group = "ceiling"

    def climb(self, ladder: Ladder) -> None:
        ladder.stage("in_context", "The ceiling: the base model with the passage in the prompt", 0)
        answers = ladder.inner.answers("ladder/in_context", ladder.tasks, on=None, open_book=True)
        ladder.add(ladder.asked("in_context", None, ladder.tasks, answers))
