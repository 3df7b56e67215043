"""REINFORCE (Williams 1992) with a baseline; leave-one-out is RLOO (Ahmadian et al. 2024, arXiv 2402.14740, equation 8).

The gradient is that of ``sum_i (r_i - b_i) log p(edit_i)``, one pass over a round's edits. Baselines: ``none``; ``mean``, of the
edits of the same task; ``moving_average``, of all rewards so far; ``leave_one_out``, the mean of the task's other edits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from ..config import AlgorithmSettings
from ..engine.base import Adapter, Engine
from .base import Improvement, Judged, State
from .experience import Experience, gather, group_advantages, ratio_to, sampling_logprobs, with_regularisers
from .gradient import improved
from .training import Tokens


@dataclass(frozen=True)
class Reinforce:
    """See the module."""

    engine: Engine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, judged: Sequence[Judged], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`."""
        how = self.settings.gradient
        experience = gather(self.engine, judged, policy, self.settings)
        advantages, carried = self._advantages(experience, state)

        def loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            logprobs = sampling_logprobs(tokens.states, experience)
            # On-policy the ratio is 1 up to rounding; of a stale edit it is the truncated importance weight.
            ratio = ratio_to(logprobs.detach(), tokens["behaviour"]).clamp(max=1 + how.clip_high)
            weight = torch.where(tokens["stale"] > 0, ratio, torch.ones_like(ratio))
            return -weight * tokens["advantage"] * logprobs, {}

        return improved(
            self.engine, self.settings, policy, experience, advantages, with_regularisers(loss, experience, self.settings),
            {**state, **carried}, seed,
        )  # fmt: skip

    def _advantages(self, experience: Experience, state: State) -> tuple[list[float], State]:
        rewards, baseline = experience.rewards, self.settings.gradient.baseline
        if baseline == "none" or not rewards:
            return list(rewards), {}
        if baseline == "mean":
            return group_advantages(experience, scale=False), {}
        if baseline == "moving_average":
            kept = self.settings.gradient.moving_average
            mean, known = fmean(rewards), state.get("baseline")
            before = mean if known is None else float(known)
            return [r - before for r in rewards], {"baseline": torch.tensor(kept * before + (1 - kept) * mean)}
        out = [0.0] * len(rewards)
        for group in experience.groups:
            total = sum(rewards[i] for i in group)
            for i in group if len(group) > 1 else ():
                out[i] = rewards[i] - (total - rewards[i]) / (len(group) - 1)
        return out, {}
