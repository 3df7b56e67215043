"""GRPO: advantages normalised within a task's edits, a clipped ratio, KL to the frozen reference (arXiv 2402.03300, section 4.1).

Without the division by the standard deviation and with ``normalise = "sum"`` it is Dr. GRPO (arXiv 2503.20783); with a higher
``clip_high`` and ``normalise = "token"``, DAPO's loss (arXiv 2503.14476).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..config import AlgorithmSettings
from ..engine.base import Adapter, Engine
from .base import Improvement, Judged, State
from .experience import clipped, gather, group_advantages, ratio_to, sampling_logprobs, with_regularisers
from .gradient import improved, penalised, ratio_figures
from .training import Tokens


@dataclass(frozen=True)
class Grpo:
    """See the module."""

    engine: Engine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, judged: Sequence[Judged], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`."""
        how = self.settings.gradient
        experience = gather(self.engine, judged, policy, self.settings)
        if how.kl_in == "reward":
            experience = penalised(experience, how.kl)
        advantages = group_advantages(experience, scale=how.scale)

        def loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            logprobs = sampling_logprobs(tokens.states, experience)
            ratio = ratio_to(logprobs, tokens["behaviour"])
            gain = clipped(ratio, tokens["advantage"], how.clip_low, how.clip_high)
            return -gain, ratio_figures(ratio, how)

        return improved(
            self.engine, self.settings, policy, experience, advantages, with_regularisers(loss, experience, self.settings),
            state, seed,
        )  # fmt: skip
