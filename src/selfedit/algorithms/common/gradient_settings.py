"""The settings that all policy gradients share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...config import Section


class GradientSettings(Section):
    """What all policy gradients have: part of the tables ``[algorithm.reinforce]``, ``[algorithm.grpo]``, ``[algorithm.ppo]``."""

    minibatch: int = Field(16, ge=1, description="edits per optimiser step")
    normalise: Literal["token", "sequence", "sum"] = Field(
        "token",
        description="how a minibatch's loss is averaged. token: over its tokens; sequence: over its edits, of each the mean "
        "over its tokens; sum: over its edits, of each the sum over its tokens (the gradient of the expected reward)",
    )
    entropy: float = Field(0.0, ge=0, description="weight of an entropy bonus per token")
    invalid_reward: float = Field(
        -1.0,
        le=0,
        description="reward of an edit that could not be applied, in the units of rank_by; it is never a gain, and never "
        "more than the round's worst valid edit",
    )
    kl: float = Field(0.05, ge=0, description="weight of KL(policy || frozen base), in nats")
    kl_in: Literal["loss", "reward"] = Field(
        "loss", description="where this KL is counted: in the loss (k3), or in the reward (reinforce: only in the loss)"
    )


class ClippedSettings(GradientSettings):
    """Those of algorithms with PPO's clipped ratio."""

    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio's lower bound is 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="the ratio's upper bound is 1 + clip_high")
