"""PPO: a clipped policy and value loss, a value head on the policy, generalised advantages (arXiv 1707.06347, 1506.02438).

As it is applied to language models (Ziegler et al. 2019, arXiv 1909.08593): an edit's reward comes with its last token, and every
token pays for its KL to the frozen reference. The value of a token is a linear function of the state that predicts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..config import AlgorithmSettings, sub_seed
from ..engine.base import LocalEngine
from ..engine.training.states import TokenStates
from ..types import Adapter
from .base import Improvement, RatedEdit, State
from .common.experience import Experience, clipped, gather, ratio_to, sampling_logprobs, with_regularisers
from .common.gradient import begin, columns_of, ratio_figures
from .common.gradient_settings import ClippedSettings
from .common.training import Example, Tokens, per_token

VALUE_CLIP = 0.2  # how far a value may move in a round before its error counts in full


class PpoSettings(ClippedSettings):
    """PPO: the table ``[algorithm.ppo]``."""

    kl: float = Field(0.01, ge=0, description="weight of KL(policy || frozen base), in nats")
    kl_in: Literal["loss", "reward"] = Field("reward", description="where this KL is counted: in the loss (k3), or in the reward")
    kl_stop: float = Field(0.2, ge=0, description="end a round's training if KL(old || new) per token exceeds this; 0: never")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of the generalised advantage estimates")
    value_weight: float = Field(0.1, ge=0, description="weight of the value head's error")


@dataclass(frozen=True)
class Ppo:
    """PPO: a clipped policy and value loss, a value head on the policy, generalised advantages (arXiv 1707.06347)."""

    Settings: ClassVar = PpoSettings
    defaults: ClassVar[dict[str, Any]] = {"epochs": 2}

    engine: LocalEngine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, rated: Sequence[RatedEdit], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`."""
        how = self.settings.own("ppo", PpoSettings)
        experience = gather(self.engine, rated, policy, self.settings, how)
        if not experience:
            return Improvement(policy, state, experience.figures)
        head = self._head(experience, state)
        training = begin(self.engine, self.settings, how, policy, state, seed, [head], kl_stop=how.kl_stop or math.inf)

        def value(states: TokenStates) -> Tensor:
            hidden = states.hidden.float()
            return hidden @ head[:-1].to(hidden.device) + head[-1].to(hidden.device)

        values = per_token(self.engine, training.bank, experience.sequences, value, self.settings.batch_size)
        examples, moved = _examples(experience, values, how)

        def loss(tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
            ratio = ratio_to(sampling_logprobs(tokens.states, experience), tokens["behaviour"])
            gain = clipped(ratio, tokens["advantage"], how.clip_low, how.clip_high)
            error = value_error(value(tokens.states), tokens["value"], tokens["return"], VALUE_CLIP)
            return how.value_weight * error - gain, {**ratio_figures(ratio, how), "value_error": error}

        figures = training.run(examples, with_regularisers(loss, experience, how), sub_seed(seed, "order"))
        after = {**training.finish(), "value_head": head.detach().cpu().clone()}
        figures = {**experience.figures, **figures, "kl_to_reference": moved}
        return Improvement(training.bank.adapter(0), after, figures)

    def _head(self, experience: Experience, state: State) -> Tensor:
        """The value head (D + 1, the bias last): the state's, or one that says the mean reward everywhere."""
        if "value_head" in state:
            return state["value_head"].clone().requires_grad_()
        with torch.no_grad():
            width = self.engine.states([experience.sequences[:1]], on=None, members=None).hidden.shape[-1]
        head = torch.zeros(width + 1)
        head[-1] = fmean(experience.rewards)
        return head.requires_grad_()


def _examples(experience: Experience, values: Sequence[Tensor], how: PpoSettings) -> tuple[list[Example], float]:
    """Every edit with its advantages, returns and old values; and the mean KL to the reference per token (0 without one)."""
    estimates, moved = [], []
    for i, reward in enumerate(experience.rewards):
        rewards = torch.zeros_like(values[i])
        if experience.policy:
            difference = experience.policy[i] - experience.reference[i]
            moved.append(float(difference.mean()))
            rewards -= how.kl * difference
        rewards[-1] += reward
        estimates.append(generalised_advantages(rewards, values[i], how.lam))
    scale = torch.cat(estimates).std() if sum(map(len, estimates)) > 1 else torch.tensor(1.0)
    centre = torch.cat(estimates).mean()
    examples = [
        Example(
            sequence,
            {
                **columns_of(experience, i),
                "advantage": (estimates[i] - centre) / scale.clamp(min=1e-8),
                "return": estimates[i] + values[i],
                "value": values[i],
            },
        )
        for i, sequence in enumerate(experience.sequences)
    ]
    return examples, fmean(moved) if moved else 0.0


def generalised_advantages(rewards: Tensor, values: Tensor, lam: float) -> Tensor:
    """GAE (T), undiscounted: exponentially weighted sums of the temporal differences; the value after the last token is 0."""
    following = torch.cat([values[1:], values.new_zeros(1)])
    differences = rewards + following - values
    out = torch.zeros_like(values)
    running = 0.0
    for t in range(len(values) - 1, -1, -1):
        running = float(differences[t]) + lam * running
        out[t] = running
    return out


def value_error(value: Tensor, old: Tensor, target: Tensor, clip: float) -> Tensor:
    """Half the squared error of each token's value, the worse of the value itself and of one kept within ``clip`` of the old."""
    near = old + (value - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - target) ** 2, (near - target) ** 2)
