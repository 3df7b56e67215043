"""The rung `no_edit`."""

from __future__ import annotations

from ..ladder import Ladder, Rung


class NoEdit(Rung):
    """Nothing learned: the base, asked without the passage."""

    label = "no training"
    writes = False
    trains = False

    def climb(self, ladder: Ladder) -> None:
        answers = ladder.unedited(None, ladder.tasks)
        ladder.add(ladder.asked("no_edit", None, ladder.tasks, [answers[task.id] for task in ladder.tasks]))
