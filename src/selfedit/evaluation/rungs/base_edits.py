"""The rung `base_edits`."""

from __future__ import annotations

from ..ladder import Ladder, Rung


class BaseEdits(Rung):
    """Trained on the base's own self-edits, before any reinforcement learning."""

    label = "self-edits, before RL"
    pairs = (("base_edits", "passage_only"), ("base_edits", "no_edit"))

    def climb(self, ladder: Ladder) -> None:
        ladder.follow("before", ladder.written("base_edits", None, None, ladder.tasks))
