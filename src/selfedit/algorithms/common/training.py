"""Training a policy's adapter on a loss per token: what all algorithms share.

A minibatch's loss is a weighted sum over its tokens, so that it can be cut into forwards of ``batch_size`` sequences whose
gradients add up to the same. The weights are the normalisation (`GradientSettings.normalise`): DAPO's by ``token`` (arXiv
2503.14476), GRPO's by ``sequence`` (arXiv 2402.03300), or REINFORCE's ``sum``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from ...config import AlgorithmSettings
from ...engine.adapters.lora import Bank
from ...engine.base import LocalEngine
from ...engine.model.packing import parts_of
from ...engine.training.states import TokenStates
from ...errors import UpdateError
from ...types import Adapter, Completion, TrainSequence
from ..base import State

Normalise = Literal["token", "sequence", "sum"]


@dataclass(frozen=True)
class Example:
    """One edit to learn from: its tokens, and what the loss needs of each completion token (T), such as its advantage."""

    sequence: TrainSequence
    columns: dict[str, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Completion tokens."""
        return self.sequence.n_targets


@dataclass(frozen=True)
class Tokens:
    """The M completion tokens of a forward: the policy's states, differentiable, and the examples' columns (M)."""

    states: TokenStates
    columns: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]


# The loss of each token (M), and figures of each token (M) whose weighted means go into the journal.
Loss = Callable[[Tokens], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Schedule:
    """How a round's examples are gone through.

    ``batch_size``: sequences in one forward, at most (`LocalEngine.tokens_at_once` may cut it further). ``minibatch``:
    sequences of one optimiser step. ``kl_stop``: the epochs end where the figure ``kl`` of a minibatch lies above it (nats per
    token).
    """

    epochs: int
    batch_size: int
    minibatch: int
    lr: float
    decay: bool = False  # linearly to 0
    normalise: Normalise = "token"
    max_grad_norm: float = 1.0
    kl_stop: float = math.inf


def cloning_sequence(completion: Completion) -> TrainSequence:
    """Prompt and completion; only the completion counts, and of a constrained choice only what was chosen."""
    prompt, tokens = completion.prompt_ids, completion.token_ids
    allowed = ((),) * len(prompt) + completion.allowed if completion.allowed else ()
    return TrainSequence(prompt + tokens, (False,) * len(prompt) + completion.chosen, allowed=allowed)


class PolicyTraining:
    """The policy's adapter as leaves of autograd, its optimiser, and heads beside it.

    The optimiser's moments come from ``state`` and go back into it (`finish`), so that rounds continue one training.
    """

    def __init__(self, engine: LocalEngine, bank: Bank, schedule: Schedule, state: State, heads: Sequence[Tensor] = ()) -> None:
        """``bank`` holds the policy alone; ``heads`` (leaves that require gradients) are trained along."""
        self._engine, self.bank, self._schedule = engine, bank, schedule
        self._leaves = [*bank.parameters(), *heads]
        self._optimizer = torch.optim.AdamW(self._leaves, lr=schedule.lr, weight_decay=0.0)
        self._restore(state)

    def run(self, examples: Sequence[Example], loss: Loss, seed: int) -> dict[str, float]:
        """Train on all examples; the last epoch's figures, weighted as the loss is, and how many steps were made."""
        how = self._schedule
        total = how.epochs * math.ceil(len(examples) / how.minibatch)
        sums: dict[str, float] = {}
        step = 0
        for epoch in range(how.epochs):
            sums = dict.fromkeys(sums, 0.0)
            for batch in _minibatches(examples, how.minibatch, random.Random(f"{seed}/{epoch}")):
                if how.decay:
                    self._optimizer.param_groups[0]["lr"] = how.lr * (total - step) / total
                figures = self._step(batch, loss)
                step += 1
                share = len(batch) / len(examples)
                sums = {name: sums.get(name, 0.0) + share * value for name, value in figures.items()}
                if figures.get("kl", 0.0) > how.kl_stop:
                    return {**figures, "optimiser_steps": step, "stopped_early": 1.0}
        return {**sums, "optimiser_steps": step}

    def _step(self, batch: Sequence[Example], loss: Loss) -> dict[str, float]:
        """One optimiser step; the figures' weighted means."""
        self._optimizer.zero_grad()
        sums: dict[str, float] = {"loss": 0.0}
        for tokens, weights in self._forwards(batch):
            each, figures = loss(tokens)
            part = (each * weights).sum()
            part.backward()  # type: ignore[no-untyped-call]
            sums["loss"] += float(part.detach())
            share = weights / weights.sum() * (len(weights) / sum(e.length for e in batch))
            for name, values in figures.items():
                sums[name] = sums.get(name, 0.0) + float((values.detach() * share).sum())
        norm = float(torch.nn.utils.clip_grad_norm_(self._leaves, self._schedule.max_grad_norm))
        if not math.isfinite(norm):
            raise UpdateError("the policy's training diverged (its gradient is not finite); lower algorithm.lr")
        self._optimizer.step()
        return {**sums, "grad_norm": norm}

    def _forwards(self, batch: Sequence[Example]) -> Iterator[tuple[Tokens, Tensor]]:
        size = self._schedule.batch_size
        n_tokens = sum(example.length for example in batch)
        for some in (part for at in range(0, len(batch), size) for part in _fitting(batch[at : at + size], self._engine)):
            states = self._engine.states([[example.sequence for example in some]], on=None, members=self.bank)
            device = states.hidden.device
            weights = [_weight(e.length, len(batch), n_tokens, self._schedule.normalise) for e in some for _ in range(e.length)]
            names = some[0].columns
            columns = {name: torch.cat([example.columns[name] for example in some]).to(device) for name in names}
            yield Tokens(states, columns), torch.tensor(weights, device=device)

    def finish(self) -> State:
        """The optimiser's state, to go on with in the next round."""
        saved: State = {}
        for i, leaf in enumerate(self._leaves):
            for name, value in self._optimizer.state[leaf].items():
                saved[f"optimiser.{i}.{name}"] = value.detach().cpu().clone()
        return saved

    def _restore(self, state: State) -> None:
        for i, leaf in enumerate(self._leaves):
            prefix = f"optimiser.{i}."
            mine = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if mine and mine["exp_avg"].shape == leaf.shape:
                on = {name: value.clone().to("cpu" if name == "step" else leaf.device) for name, value in mine.items()}
                self._optimizer.state[leaf] = on


@torch.no_grad()
def per_token(
    engine: LocalEngine,
    bank: Bank | None,
    sequences: Sequence[TrainSequence],
    quantity: Callable[[TokenStates], Tensor],
    batch_size: int,
) -> list[Tensor]:
    """A quantity of each sequence's completion tokens (T) under a bank of one member, or the bare base without one."""
    out: list[Tensor] = []
    for start in range(0, len(sequences), batch_size):
        for some in parts_of(sequences[start : start + batch_size], engine.tokens_at_once):
            states = engine.states([some], on=None, members=bank)
            out += [part.cpu() for part in states.split(quantity(states))[0]]
    return out


def _fitting(examples: Sequence[Example], engine: LocalEngine) -> Iterator[list[Example]]:
    """Examples in parts of as many tokens as the engine takes in one forward."""
    rest = iter(examples)
    for part in parts_of([example.sequence for example in examples], engine.tokens_at_once):
        yield list(islice(rest, len(part)))


def _minibatches(examples: Sequence[Example], size: int, rng: random.Random) -> Iterator[list[Example]]:
    order = list(range(len(examples)))
    rng.shuffle(order)
    for start in range(0, len(order), size):
        yield [examples[i] for i in order[start : start + size]]


def _weight(length: int, n_sequences: int, n_tokens: int, normalise: Normalise) -> float:
    """What one token of a sequence counts in its minibatch's loss."""
    if normalise == "token":
        return 1 / n_tokens
    return 1 / n_sequences if normalise == "sum" else 1 / (n_sequences * length)


def policy_bank(engine: LocalEngine, policy: Adapter | None, how: AlgorithmSettings, seed: int) -> Bank:
    """The policy alone on the bare base, ready to train; a fresh adapter where there is none yet."""
    start = policy or engine.initial_adapter(rank=how.rank, alpha=how.alpha, seed=seed, targets=how.targets)
    return engine.bank([start], targets=how.targets)
