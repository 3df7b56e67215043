"""Teacher forcing with gradients: what losses on a bank's log-probabilities are built from.

REINFORCE, GRPO, PPO and any other loss on what a policy has written train the policy's adapter this way: the bank's rows are an
ordinary leaf of autograd, so torch's own optimisers, clipping and schedules work on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...types import TrainSequence
from ..adapters.adapter_context import AdapterContext, bank_views
from ..adapters.lora import Bank
from ..model.body import Body


@dataclass(frozen=True)
class TokenStates:
    """The M target tokens of a batch of sequences, in the order of the members, then of their sequences.

    ``hidden`` (M, D) are the states that predict ``targets`` (M), in the base's dtype; ``counts[k][s]`` of them belong to
    sequence s of member k.
    """

    hidden: Tensor
    targets: Tensor
    counts: list[list[int]]
    _body: Body
    _allowed: list[tuple[int, ...]] | None = None  # of each target, where some were constrained choices

    def logprobs(self, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
        """Log p of each target (M, fp32, nats) under the distribution that is sampled from at this temperature and top_p.

        That of a constrained choice is cut to what it was chosen from.
        A target counts as inside the nucleus even where it no longer is, so that it has a probability. What the cut leaves is
        taken as given: no gradient goes through it.
        """
        return self._body.token_logprobs(self.hidden, self.targets, temperature, top_p, self._allowed)

    def entropies(self, temperature: float = 1.0) -> Tensor:
        """Entropy of the distribution of each target (M, fp32, nats)."""
        return self._body.token_entropies(self.hidden, self.targets, temperature, self._allowed)

    def split(self, values: Tensor) -> list[list[Tensor]]:
        """Something per token, (M, ...), as ``[k][s]``: a tensor for each sequence of each member."""
        parts = iter(torch.split(values, [count for counts in self.counts for count in counts]))
        return [[next(parts) for _ in counts] for counts in self.counts]


def token_states(
    body: Body, place: AdapterContext, bank: Bank | None, sequences: Sequence[Sequence[TrainSequence]]
) -> TokenStates:
    """One forward of ``sequences[k]`` under member k, inside ``with place``; each member needs a sequence, each a target.

    Gradients reach ``bank.flat`` where it requires them.
    """
    differentiable = bank is not None and bank.flat.requires_grad and torch.is_grad_enabled()
    if bank is not None and differentiable:
        place.bind_differentiable(bank, body.dtype)
    elif bank is not None:
        place.bind(*bank_views(bank, range(len(bank)), body.dtype))
    packed = body.pack(sequences)
    place.arrange(packed.spans)
    with torch.set_grad_enabled(differentiable):
        return TokenStates(body.packed_hidden(packed), packed.targets, packed.counts, body, _allowed(sequences))


def _allowed(sequences: Sequence[Sequence[TrainSequence]]) -> list[tuple[int, ...]] | None:
    """For each target of all sequences, in their order, the tokens that it was chosen from; None where all were free."""
    every = [sequence for some in sequences for sequence in some]
    if not any(sequence.allowed for sequence in every):
        return None
    return [
        (sequence.allowed or ((),) * len(sequence.ids))[i]
        for sequence in every
        for i in range(1, len(sequence.ids))
        if sequence.mask[i]
    ]
