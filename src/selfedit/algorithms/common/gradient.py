"""One round of a policy gradient: from edits with advantages to the policy's next weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...config import AlgorithmSettings, sub_seed
from ...engine.base import LocalEngine
from ...types import Adapter
from ..base import Improvement, State
from .experience import Experience
from .gradient_settings import ClippedSettings, GradientSettings
from .training import Example, Loss, PolicyTraining, Schedule, policy_bank


def improved(
    engine: LocalEngine,
    settings: AlgorithmSettings,
    how: GradientSettings,
    policy: Adapter | None,
    experience: Experience,
    advantages: Sequence[float],
    loss: Loss,
    state: State,
    seed: int,
) -> Improvement:
    """Train on every edit's tokens with its advantage; nothing changes where no edit has any."""
    if not any(advantages):
        return Improvement(policy, state, experience.figures)
    training = begin(engine, settings, how, policy, state, seed)
    examples = [
        Example(sequence, {**columns_of(experience, i), "advantage": torch.full((sequence.n_targets,), advantages[i])})
        for i, sequence in enumerate(experience.sequences)
    ]
    figures = training.run(examples, loss, sub_seed(seed, "order"))
    kept = {name: value for name, value in state.items() if not name.startswith("optimiser.")}
    return Improvement(training.bank.adapter(0), {**kept, **training.finish()}, {**experience.figures, **figures})


def begin(
    engine: LocalEngine,
    settings: AlgorithmSettings,
    how: GradientSettings,
    policy: Adapter | None,
    state: State,
    seed: int,
    heads: Sequence[Tensor] = (),
    kl_stop: float = math.inf,
) -> PolicyTraining:
    """The policy, ready to be trained by the settings; ``kl_stop`` as in `Schedule`."""
    bank = policy_bank(engine, policy, settings, sub_seed(seed, "policy"))
    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        minibatch=how.minibatch,
        lr=settings.lr,
        normalise=how.normalise,
        kl_stop=kl_stop,
    )
    return PolicyTraining(engine, bank, schedule, state, heads)


def columns_of(experience: Experience, i: int) -> dict[str, Tensor]:
    """What every policy gradient knows of edit i's tokens (T each)."""
    columns = {"behaviour": experience.behaviour[i]}
    return {**columns, "reference": experience.reference[i]} if experience.reference else columns


def penalised(experience: Experience, kl: float) -> Experience:
    """The rewards less ``kl`` times what the edit's tokens say of KL(policy || reference): KL in the reward, not in the loss."""
    if not experience.policy:
        return experience
    rows = zip(experience.rewards, experience.policy, experience.reference, strict=True)
    return replace(experience, rewards=[reward - kl * float((ours - base).sum()) for reward, ours, base in rows])


def ratio_figures(ratio: Tensor, how: ClippedSettings) -> dict[str, Tensor]:
    """How far the policy has moved from the one that sampled: KL(behaviour || policy), and the share of clipped tokens."""
    ratio = ratio.detach()
    outside = (ratio < 1 - how.clip_low) | (ratio > 1 + how.clip_high)
    return {"kl": ratio - 1 - ratio.log(), "clipped_share": outside.float()}
