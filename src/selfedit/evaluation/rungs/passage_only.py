"""The rung `passage_only`."""

from __future__ import annotations

from ...config import Settings
from ..ladder import Ladder, Rung


class PassageOnly(Rung):
    """Trained on the raw passage alone, at the learning rate that suits it best."""

    label = "passage only"
    writes = False
    pairs = (("passage_only", "no_edit"),)

    def climb(self, ladder: Ladder) -> None:
        ladder.add(ladder.passages("passage_only", None, ladder.tasks))

    def cost(self, settings: Settings) -> int:
        # With the choice of the learning rate.
        rates = len(settings.ladder.passage_lr_factors)
        return settings.tasks.evaluation + (rates * settings.tasks.dev if rates > 1 else 0)
