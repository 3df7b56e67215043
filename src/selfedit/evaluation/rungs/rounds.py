"""The rung `rounds`: one result per round of reinforcement learning."""

from __future__ import annotations

from ...config import Settings
from ..ladder import Ladder, Rung
from .base import LAST_ROUND


class Rounds(Rung):
    """Trained on the self-edits of the trained policy, after each round of reinforcement learning."""

    label = "self-edits, RL round"
    group = "after RL"
    pairs = (
        (LAST_ROUND, "base_edits"),
        (LAST_ROUND, "passage_only"),
        (LAST_ROUND, "base_self_qa"),
    )

    def climb(self, ladder: Ladder) -> None:
        # Rounds before the last one are tested on fewer tasks.
        policies = ladder.trained.policies
        last, shown = len(policies) - 1, ladder.settings.ladder.middle_rounds
        for number, policy in enumerate(policies[1:], start=1):
            if number != last and shown != "all" and number not in shown:
                continue
            tasks = ladder.tasks if number == last else ladder.fewer
            result = ladder.written(f"round_{number}", policy, ladder.parts.learns_on(policy), tasks)
            ladder.follow("after", result) if number == last else ladder.add(result)

    def cost(self, settings: Settings) -> int:
        rounds = settings.rounds or int(bool(settings.protocol.policy))
        fewer = min(settings.tasks.evaluation, settings.ladder.middle_tasks)
        return settings.tasks.evaluation + (rounds - 1) * fewer if rounds else 0
