"""The rung `rl_edits_base_learner`."""

from __future__ import annotations

from ...config import Settings
from ..ladder import Ladder, Rung
from .base import LAST_ROUND


class RlEditsBaseLearner(Rung):
    """The trained policy writes, the base learns: shows whether it is the edits that became better."""

    label = "RL self-edits, base learns"
    group = "ablation"
    pairs = ((LAST_ROUND, "rl_edits_base_learner"), ("rl_edits_base_learner", "base_edits"))
    takes_apart = True

    def climb(self, ladder: Ladder) -> None:
        ladder.add(ladder.written("rl_edits_base_learner", ladder.last, None, ladder.fewer))

    def cost(self, settings: Settings) -> int:
        return min(settings.tasks.evaluation, settings.ladder.middle_tasks)
