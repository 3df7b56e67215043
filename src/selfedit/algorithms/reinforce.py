"""REINFORCE (Williams 1992) with a baseline; leave-one-out is RLOO (Ahmadian et al. 2024, arXiv 2402.14740, equation 8).

The gradient is that of ``sum_i (r_i - b_i) log p(edit_i)``, one pass over a round's edits. Baselines: ``none``; ``mean``, of the
edits of the same task; ``leave_one_out``, the mean of the task's other edits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from ..config import AlgorithmSettings
from ..engine.base import LocalEngine
from ..types import Adapter
from .base import Improvement, RatedEdit, State
from .common.experience import Experience, gather, group_advantages, sampling_logprobs, with_regularisers
from .common.gradient import improved
from .common.gradient_settings import GradientSettings
from .common.training import Tokens


class ReinforceSettings(GradientSettings):
    """REINFORCE: the table ``[algorithm.reinforce]``."""

    baseline: Literal["none", "mean", "leave_one_out"] = Field(
        "leave_one_out", description="what is subtracted from an edit's reward (leave_one_out is RLOO)"
    )


@dataclass(frozen=True)
class Reinforce:
    """REINFORCE (Williams 1992) with a baseline; leave-one-out is RLOO (arXiv 2402.14740)."""

    Settings: ClassVar = ReinforceSettings

    engine: LocalEngine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, rated: Sequence[RatedEdit], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`."""
        how = self.settings.own("reinforce", ReinforceSettings)
        experience = gather(self.engine, rated, policy, self.settings, how)
        advantages = _advantages(experience, how.baseline)

        def loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return -tokens["advantage"] * sampling_logprobs(tokens.states, experience), {}

        return improved(
            self.engine, self.settings, how, policy, experience, advantages, with_regularisers(loss, experience, how),
            state, seed,
        )  # fmt: skip


def _advantages(experience: Experience, baseline: str) -> list[float]:
    """Each edit's reward less its baseline."""
    rewards = experience.rewards
    if baseline == "none":
        return list(rewards)
    if baseline == "mean":
        return group_advantages(experience, scale=False)
    out = [0.0] * len(rewards)
    for group in experience.groups:
        total = sum(rewards[i] for i in group)
        for i in group if len(group) > 1 else ():
            out[i] = rewards[i] - (total - rewards[i]) / (len(group) - 1)
    return out
