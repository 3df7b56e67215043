"""Sections of a run's settings: the algorithms of the outer loop."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .sections import Section


class GradientSettings(Section):
    """Policy gradients: reinforce, grpo and ppo (rest_em clones instead, and takes nothing from here)."""

    minibatch: int = Field(32, ge=1, description="edits of one optimiser step")
    normalise: Literal["token", "sequence", "sum"] = Field(
        "token",
        description="a minibatch's loss is the mean over its tokens, over its edits of each one's mean over tokens, or over its "
        "edits of each one's sum (the gradient of the expected reward)",
    )
    max_grad_norm: float = Field(1.0, gt=0)
    entropy: float = Field(0.0, ge=0, description="weight of an entropy bonus, per token")
    invalid_reward: float = Field(
        -1.0,
        le=0,
        description="what an edit that could not be applied is worth, in the units of rank_by; never a gain, and never more "
        "than the round's worst edit that could be applied",
    )
    stale: Literal["refuse", "weight"] = Field(
        "refuse",
        description="edits that another policy wrote: refused, or kept with importance weights; counted either way",
    )
    baseline: Literal["none", "mean", "moving_average", "leave_one_out"] = Field(
        "leave_one_out", description="reinforce: what is taken from an edit's reward (leave_one_out is RLOO)"
    )
    moving_average: float = Field(0.8, ge=0, lt=1, description="reinforce: share of the old average kept each round")
    scale: bool = Field(
        True, description="grpo, ppo: divide advantages by their standard deviation (of the task's, of all edits)"
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio's lower bound is 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="the ratio's upper bound is 1 + clip_high")
    kl: float = Field(0.0, ge=0, description="weight of KL(policy || frozen base), nats")
    kl_in: Literal["loss", "reward"] = Field(
        "loss", description="where that KL counts: in the loss (k3), or in the reward"
    )
    kl_target: float = Field(
        0.0, ge=0, description="ppo with kl_in = 'reward': the KL a token that its price adapts to; 0: fixed"
    )
    kl_stop: float = Field(
        0.0, ge=0, description="end a round's training where KL(old || new) a token is above this; 0: never"
    )
    gamma: float = Field(1.0, gt=0, le=1, description="ppo: discount a token")
    lam: float = Field(0.95, ge=0, le=1, description="ppo: lambda of the generalised advantages")
    value_weight: float = Field(0.1, ge=0, description="ppo: weight of the value head's error")
    value_clip: float = Field(
        0.2, gt=0, description="ppo: how far a value may move in a round before its error counts in full"
    )


class AlgorithmSettings(Section):
    """How the policy learns from a round. The defaults are reinforce's; each other name starts from its own (`ALGORITHMS`)."""

    name: Literal["rest_em", "reinforce", "grpo", "ppo"] = Field(
        "reinforce",
        description="rest_em: fine-tuning on the best edits (SEAL, section 3.1); the others are policy gradients. Where it is "
        "not set: rest_em, if there is a proxy or edits have several samples, which no policy gradient learns from",
    )
    rank_by: tuple[Literal["gain", "reward", "logprob"], ...] = Field(
        ("logprob",),
        min_length=1,
        description="what orders a context's edits, the first first: the gain in reward; its level; the gain in the gold "
        "answers' log-likelihood, which has fewer ties and less noise than the accuracy on a few probes. Policy gradients take "
        "the first as the reward. Where it is not set: gain, if reward.weights, reward.custom, a judge or a perplexity is",
    )
    keep: int = Field(2, ge=1, description="rest_em: best edits kept per context")
    positive_only: bool = Field(True, description="rest_em: keep an edit only if its gain over no edit is positive")
    confidence: float = Field(
        0.0,
        ge=0,
        description="rest_em: with positive_only, a gain has to be above so many of its standard errors over seeds",
    )
    all_correct: bool = Field(False, description="rest_em: keep an edit only if it made every probe right")
    weighted: bool = Field(False, description="rest_em: weight winners by what they gained")
    replay: int = Field(
        0, ge=0, description="rest_em: texts of earlier rounds' winners that are cloned again, the latest first"
    )
    epochs: int = Field(1, ge=1, description="passes over a round's edits (rest_em: over the winners)")
    batch_size: int = Field(8, ge=1, description="texts in one forward (rest_em: and of one optimiser step)")
    lr: float = Field(2e-3, gt=0)
    rank: int = Field(32, ge=1)
    alpha: float = Field(64.0, gt=0)
    targets: str = Field(
        "all-linear", description="modules that the policy's adapter changes (the inner loop's are model.targets)"
    )
    gradient: GradientSettings = GradientSettings(minibatch=16, kl=0.05)


# What an algorithm's own settings are where nobody set them.
ALGORITHMS: dict[str, dict[str, Any]] = {
    "rest_em": {"epochs": 4, "gradient": {}},
    "reinforce": {"epochs": 1, "gradient": {"minibatch": 16, "kl": 0.05}},
    "grpo": {"epochs": 2, "gradient": {"minibatch": 16, "kl": 0.1}},
    "ppo": {"epochs": 2, "gradient": {"minibatch": 16, "kl": 0.01, "kl_in": "reward", "kl_stop": 0.2}},
}
