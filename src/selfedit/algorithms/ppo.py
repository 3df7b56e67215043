"""PPO: a clipped policy and value loss, a value head on the policy, generalised advantages (arXiv 1707.06347, 1506.02438).

As it is applied to language models (Ziegler et al. 2019, arXiv 1909.08593): an edit's reward comes with its last token, every
token pays for its KL to the frozen reference, and the price adapts to a target. The value of a token is a linear function of the
state that predicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from ..config import AlgorithmSettings, sub_seed
from ..engine.base import Adapter, Engine, States
from .base import Improvement, Judged, State
from .experience import Experience, clipped, gather, ratio_to, sampling_logprobs, with_regularisers
from .gradient import begin, columns_of, ratio_figures
from .training import Example, Tokens, policy_bank


@dataclass(frozen=True)
class Ppo:
    """See the module."""

    engine: Engine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, judged: Sequence[Judged], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`."""
        how = self.settings.gradient
        experience = gather(self.engine, judged, policy, self.settings)
        if not experience:
            return Improvement(policy, state, experience.figures)
        head = self._head(policy, experience, state, seed)
        training = begin(self.engine, self.settings, policy, state, seed, [head])

        def value(states: States) -> Tensor:
            hidden = states.hidden.float()
            return hidden @ head[:-1].to(hidden.device) + head[-1].to(hidden.device)

        values = training.per_token(experience.sequences, value)
        price = float(state.get("kl_price", torch.tensor(how.kl)))
        examples, moved = self._examples(experience, values, price)

        def loss(tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
            ratio = ratio_to(sampling_logprobs(tokens.states, experience), tokens["behaviour"])
            gain = clipped(ratio, tokens["advantage"], how.clip_low, how.clip_high)
            error = value_error(value(tokens.states), tokens["value"], tokens["return"], how.value_clip)
            return how.value_weight * error - gain, {**ratio_figures(ratio, how), "value_error": error}

        figures = training.run(examples, with_regularisers(loss, experience, self.settings), sub_seed(seed, "order"))
        after = {
            **training.finish(),
            "value_head": head.detach().cpu().clone(),
            "kl_price": torch.tensor(self._price(price, moved)),
        }
        return Improvement(
            training.bank.adapter(0),
            after,
            {**experience.figures, **figures, "kl_price": price, "kl_to_reference": moved},
        )

    def _head(self, policy: Adapter | None, experience: Experience, state: State, seed: int) -> Tensor:
        """The value head (D + 1, the bias last): the state's, or one that says the mean reward everywhere."""
        if "value_head" in state:
            return state["value_head"].clone().requires_grad_()
        bank = policy_bank(
            self.engine,
            policy,
            rank=self.settings.rank,
            alpha=self.settings.alpha,
            targets=self.settings.targets,
            seed=seed,
        )
        with torch.no_grad():
            width = self.engine.states(bank, [experience.sequences[:1]]).hidden.shape[-1]
        head = torch.zeros(width + 1)
        head[-1] = fmean(experience.rewards)
        return head.requires_grad_()

    def _examples(self, experience: Experience, values: Sequence[Tensor], price: float) -> tuple[list[Example], float]:
        """Every edit with its advantages, returns and old values; and the mean KL to the reference a token (0 without one)."""
        how = self.settings.gradient
        estimates, moved = [], []
        for i, reward in enumerate(experience.rewards):
            rewards = torch.zeros_like(values[i])
            if experience.policy:
                difference = experience.policy[i] - experience.reference[i]
                moved.append(float(difference.mean()))
                rewards -= price * difference
            rewards[-1] += reward
            estimates.append(generalised_advantages(rewards, values[i], how.gamma, how.lam))
        scale = torch.cat(estimates).std() if how.scale and sum(map(len, estimates)) > 1 else torch.tensor(1.0)
        centre = torch.cat(estimates).mean() if how.scale else torch.tensor(0.0)
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

    def _price(self, price: float, moved: float) -> float:
        """The next round's price of KL (Ziegler et al., section 2.2: proportional control in the logarithm)."""
        target = self.settings.gradient.kl_target
        if not target:
            return price
        return price * (1 + 0.1 * max(-0.2, min(0.2, moved / target - 1)))


def generalised_advantages(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """GAE (T): exponentially weighted sums of the temporal differences; the value after the last token is 0."""
    following = torch.cat([values[1:], values.new_zeros(1)])
    differences = rewards + gamma * following - values
    out = torch.zeros_like(values)
    running = 0.0
    for t in range(len(values) - 1, -1, -1):
        running = float(differences[t]) + gamma * lam * running
        out[t] = running
    return out


def value_error(value: Tensor, old: Tensor, target: Tensor, clip: float) -> Tensor:
    """Half the squared error of each token's value, the worse of the value itself and of one kept within ``clip`` of the old."""
    near = old + (value - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - target) ** 2, (near - target) ** 2)
