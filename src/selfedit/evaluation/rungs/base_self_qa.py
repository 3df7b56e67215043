"""The rung `base_self_qa`."""

from __future__ import annotations

from ..ladder import Ladder, Rung


class BaseSelfQa(Rung):
    """Trained on question-answer pairs that the base writes: the strongest prompt without reinforcement learning."""

    label = "self-QA edits, before RL"

    def climb(self, ladder: Ladder) -> None:
        ladder.add(ladder.written("base_self_qa", None, None, ladder.tasks, "self_qa"))
