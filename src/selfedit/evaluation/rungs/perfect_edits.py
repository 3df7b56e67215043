"""The rung `perfect_edits`."""

from __future__ import annotations

from ...edits.text import text_change
from ..ladder import Ladder, Rung
from .base import LAST_ROUND


class PerfectEdits(Rung):
    """Trained on known-good edits that came with the tasks: how much better edits could give."""

    label = "perfect edits (oracle)"
    writes = False
    group = "ceiling"
    pairs = (("perfect_edits", LAST_ROUND),)

    def climb(self, ladder: Ladder) -> None:
        # Tasks without a known-good edit are left out.
        tasks = [task for task in ladder.tasks if task.gold_edit]
        if not tasks:
            return
        ladder.stage("perfect_edits", "Training on the known-good edits that came with the tasks", len(tasks))
        inner = ladder.inner
        changes = [text_change(inner.settings, inner.engine, task, [task.gold_edit]) for task in tasks]
        ladder.add(ladder.tried("perfect_edits", None, tasks, changes, [task.gold_edit for task in tasks]))
