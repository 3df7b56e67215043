"""The rung `passage_only_rl_learner`."""

from __future__ import annotations

from ...config import Settings
from ..ladder import Ladder, Rung
from .base import LAST_ROUND


class PassageOnlyRlLearner(Rung):
    """The trained model learns from raw passages: shows whether it has become a better learner."""

    label = "passage, RL model learns"
    writes = False
    group = "ablation"
    pairs = (
        ("passage_only_rl_learner", "passage_only"),
        (LAST_ROUND, "passage_only_rl_learner"),
    )
    for_groups = False
    takes_apart = True

    def climb(self, ladder: Ladder) -> None:
        ladder.add(ladder.passages("passage_only_rl_learner", ladder.last, ladder.fewer))

    def cost(self, settings: Settings) -> int:
        # With the choice of the learning rate, where `passage_only` does not make it.
        rates = len(settings.ladder.passage_lr_factors)
        chooses = rates > 1 and "passage_only" not in settings.ladder.rungs
        fewer = min(settings.tasks.evaluation, settings.ladder.middle_tasks)
        return fewer + (rates * settings.tasks.dev if chooses else 0)
