"""A round's edits as what policy gradients learn from: tokens, their sampling log-probabilities, rewards by group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from ...config import AlgorithmSettings
from ...engine.adapters.lora import Bank
from ...engine.base import LocalEngine
from ...engine.training.states import TokenStates
from ...errors import UpdateError
from ...types import Adapter, Completion, TrainSequence
from ..base import RatedEdit
from .gradient_settings import GradientSettings
from .training import Loss, Tokens, cloning_sequence, per_token


@dataclass(frozen=True)
class Experience:
    """Edits of one round, as parallel lists. ``groups``: the indices of each task's edits.

    ``behaviour`` are the log-probabilities (T) that the edits were sampled with. Of the whole vocabulary at the sampling
    temperature are ``reference``, the frozen base's (empty where nothing asks for a KL), and ``policy``, the policy's own (empty
    unless KL is part of the reward).
    """

    sequences: list[TrainSequence]
    rewards: list[float]
    behaviour: list[Tensor]
    reference: list[Tensor]
    policy: list[Tensor]
    groups: list[list[int]]
    temperature: float
    top_p: float
    figures: dict[str, float]

    def __len__(self) -> int:
        return len(self.sequences)


def gather(
    engine: LocalEngine,
    rated: Sequence[RatedEdit],
    policy: Adapter | None,
    settings: AlgorithmSettings,
    how: GradientSettings,
) -> Experience:
    """What can be learned from. An edit that could not be applied gets ``invalid_reward``, or what the worst that could be
    applied got if that is less: never more than any of them. One that another policy wrote is refused. Both are counted.

    Raises:
        UpdateError: the edits were not all sampled in the same way.
    """
    policy_hash = "base" if policy is None else policy.sha256
    invalid = [j for j in rated if getattr(j, settings.rank_by[0]) is None]
    stale = [j for j in rated if j.edit.policy_hash != policy_hash]
    refused = {j.edit.id for j in stale}
    # An edit that was never written (its prompt is too long) has no tokens to learn from.
    used = [j for j in rated if j.edit.completion.token_ids and j.edit.id not in refused]
    sampling = {(j.edit.temperature, j.edit.top_p) for j in used} or {(1.0, 1.0)}
    if len(sampling) > 1:
        raise UpdateError(f"edits of one round were sampled in several ways {sorted(sampling)}; learn from one at a time")
    ((temperature, top_p),) = sampling
    groups: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(used):
        groups[item.edit.task_id].append(i)
    values = [getattr(item, settings.rank_by[0]) for item in used]
    # Levels may all be negative (nats, or a user's own reward): a failure must not pass for the best edit among them.
    unusable = min([how.invalid_reward, *(value for value in values if value is not None)])
    rewards: list[float] = [unusable if value is None else value for value in values]
    sequences = [cloning_sequence(j.edit.completion) for j in used]

    def whole(bank: Bank | None) -> list[Tensor]:
        return per_token(engine, bank, sequences, lambda states: states.logprobs(temperature), settings.batch_size)

    reference = whole(None) if how.kl > 0 else []
    own = reference
    if reference and how.kl_in == "reward" and policy is not None:
        own = whole(engine.bank([policy], targets=settings.targets))
    silent = sum(len({rewards[i] for i in group}) == 1 for group in groups.values())
    return Experience(
        sequences=sequences,
        rewards=rewards,
        behaviour=[_chosen(j.edit.completion) for j in used],
        reference=reference,
        policy=own if how.kl_in == "reward" else [],
        groups=list(groups.values()),
        temperature=temperature,
        top_p=top_p,
        figures={
            "invalid": len(invalid),
            "stale": len(stale),
            "groups_without_signal": silent,
            "learned_from": len(used),
        },
    )


def _chosen(completion: Completion) -> Tensor:
    """The sampling log-probabilities of the tokens that were chosen (T)."""
    return torch.tensor([p for p, chosen in zip(completion.logprobs, completion.chosen, strict=True) if chosen])


def group_advantages(experience: Experience, *, scale: bool) -> list[float]:
    """Each edit's reward less its group's mean, over the group's standard deviation if ``scale`` (0 where all are equal)."""
    out = [0.0] * len(experience)
    for group in experience.groups:
        rewards = [experience.rewards[i] for i in group]
        mean = fmean(rewards)
        spread = stdev(rewards) if len(group) > 1 else 0.0
        for i in group:
            above = experience.rewards[i] - mean
            out[i] = above / spread if scale and spread > 0 else 0.0 if spread == 0 else above
    return out


def sampling_logprobs(states: TokenStates, experience: Experience) -> Tensor:
    """Log p (M) of the tokens under the distribution that the policy as it stands would sample from."""
    return states.logprobs(experience.temperature, experience.top_p)


def ratio_to(logprobs: Tensor, behaviour: Tensor) -> Tensor:
    """Importance ratio of each token, bounded so that it stays finite."""
    return (logprobs - behaviour).clamp(-20, 20).exp()


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """PPO's pessimistic surrogate of each token, to be maximised (arXiv 1707.06347, equation 7)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) of each token from one sample, unbiased and never negative (Schulman 2020; GRPO, equation 4)."""
    return torch.expm1(reference - logprobs) - (reference - logprobs)


def with_regularisers(loss: Loss, experience: Experience, how: GradientSettings) -> Loss:
    """``loss`` and, where the settings ask for them, KL to the frozen reference and an entropy bonus."""

    def regularised(tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
        each, figures = loss(tokens)
        if how.kl > 0 and how.kl_in == "loss":
            kl = k3(tokens.states.logprobs(experience.temperature), tokens["reference"])
            each, figures = each + how.kl * kl, {**figures, "kl_to_reference": kl}
        if how.entropy > 0:
            entropy = tokens.states.entropies(experience.temperature)
            each, figures = each - how.entropy * entropy, {**figures, "entropy": entropy}
        return each, figures

    return regularised
