"""GRPO: advantages normalised within a task's edits, a clipped ratio, KL to the frozen reference (arXiv 2402.03300, section 4.1).

Without the division by the standard deviation and with ``normalise = "sum"`` it is Dr. GRPO (arXiv 2503.20783); with a higher
``clip_high`` and ``normalise = "token"``, DAPO's loss (arXiv 2503.14476).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field

from ..config import AlgorithmSettings
from ..engine.base import LocalEngine
from ..types import Adapter
from .base import Improvement, RatedEdit, State
from .common.experience import clipped, gather, group_advantages, ratio_to, sampling_logprobs, with_regularisers
from .common.gradient import improved, penalised, ratio_figures
from .common.gradient_settings import ClippedSettings
from .common.training import Tokens


class GrpoSettings(ClippedSettings):
    """GRPO: the table ``[algorithm.grpo]``."""

    kl: float = Field(0.1, ge=0, description="weight of KL(policy || frozen base), in nats")
    scale: bool = Field(True, description="divide advantages by their standard deviation within the task")


@dataclass(frozen=True)
class Grpo:
    """GRPO: advantages normalised within a task, a clipped ratio, KL to the frozen base (arXiv 2402.03300)."""

    Settings: ClassVar = GrpoSettings
    defaults: ClassVar[dict[str, Any]] = {"epochs": 2}

    engine: LocalEngine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, rated: Sequence[RatedEdit], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`."""
        how = self.settings.own("grpo", GrpoSettings)
        experience = gather(self.engine, rated, policy, self.settings, how)
        if how.kl_in == "reward":
            experience = penalised(experience, how.kl)
        advantages = group_advantages(experience, scale=how.scale)

        def loss(tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            logprobs = sampling_logprobs(tokens.states, experience)
            ratio = ratio_to(logprobs, tokens["behaviour"])
            gain = clipped(ratio, tokens["advantage"], how.clip_low, how.clip_high)
            return -gain, ratio_figures(ratio, how)

        return improved(
            self.engine, self.settings, how, policy, experience, advantages, with_regularisers(loss, experience, how),
            state, seed,
        )  # fmt: skip
