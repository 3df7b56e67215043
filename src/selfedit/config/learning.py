"""Settings of the outer loop: how the policy learns from a round."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from .plugged import PluggedSection, plugged


class AlgorithmSettings(PluggedSection):
    """How the policy learns from a round. An algorithm's own settings are the table of its name."""

    groups: ClassVar[tuple[str, ...]] = ("algorithms",)
    name: str = Field(
        "reinforce",
        description="rest_em: fine-tuning on the best edits (SEAL, section 3.1). reinforce, grpo, ppo: policy gradients. Or "
        "the name of a plug-in. Default: reinforce; rest_em if there is a proxy or edits have several samples, because no "
        "policy gradient learns from those",
    )
    rank_by: tuple[Literal["gain", "reward", "logprob"], ...] = Field(
        ("logprob",),
        min_length=1,
        description="how a task's edits are ordered; a later entry decides between equals. gain: the gain in reward; reward: "
        "its level; logprob: the gain in the gold answers' log-likelihood, which has fewer ties and less noise than the "
        "accuracy on a few probes. Policy gradients use the first entry as the reward. Default: logprob; gain if "
        "reward.weights, reward.custom, a judge or a perplexity is set",
    )
    epochs: int = Field(
        1,
        ge=1,
        description="passes over a round's edits (rest_em: over the best edits). Default: 4 for rest_em, 2 for grpo and ppo, "
        "else 1",
    )
    batch_size: int = Field(8, ge=1, description="texts per forward pass (rest_em: also per optimiser step)")
    lr: float = Field(2e-3, gt=0, description="learning rate of the policy's adapter")
    rank: int = Field(32, ge=1, description="rank of the policy's adapter")
    alpha: float = Field(64.0, gt=0, description="alpha of the policy's adapter; its change is scaled by alpha / rank")
    targets: str = Field(
        "all-linear",
        description="modules that the policy's adapter changes, written as in model.targets (which is for the inner loop)",
    )

    def named(self) -> list[tuple[str, str]]:
        """The algorithm."""
        return [("algorithms", self.name)]

    @field_validator("name")
    @classmethod
    def _is_plugged(cls, name: str) -> str:
        return plugged("algorithms", name)
