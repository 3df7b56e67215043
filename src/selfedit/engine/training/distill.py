"""Distilled sequences: what the bare base says after each token is what they are trained towards, not the token that comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from ...types import TrainSequence
from ..model.body import Body
from ..model.packing import Packed, parts_of

References = Mapping[TrainSequence, Tensor]
_TOKENS = 8192  # through the bare base at once


@torch.no_grad()
def references(body: Body, sequences: Sequence[TrainSequence]) -> References:
    """The bare base's hidden states (M, D) before the M targets of each distilled sequence; nothing may be beside the base.

    States, as logits of every token would be as many numbers as the vocabulary has.
    """
    found: dict[TrainSequence, Tensor] = {}
    for part in parts_of(list(dict.fromkeys(s for s in sequences if s.distilled)), _TOKENS):
        packed = body.pack([part])
        found |= zip(part, torch.split(body.packed_hidden(packed), packed.counts[0]), strict=True)
    return found


def target_losses(
    body: Body, hidden: Tensor, packed: Packed, sequences_K: Sequence[Sequence[TrainSequence]], known: References
) -> Tensor:
    """What each target (M) of a packed batch counts in the loss, given the states (M, D) before them.

    ``known``: `references` of the distilled ones among its sequences.
    """
    sequences, counts = list(chain(*sequences_K)), list(chain(*packed.counts))
    if not any(sequence.distilled for sequence in sequences):
        return body.token_losses(hidden, packed.targets)
    weight = torch.tensor([sequence.distilled for sequence in sequences], device=hidden.device)
    weight = weight.repeat_interleave(torch.tensor(counts, device=hidden.device))
    hard, soft = (weight == 0).nonzero()[:, 0], weight.nonzero()[:, 0]
    theirs = torch.cat([known[sequence] for sequence in sequences if sequence.distilled])
    losses = weight[soft] * body.token_kl(hidden[soft], theirs)
    if not len(hard):
        return losses
    return (
        torch.zeros_like(weight)
        .index_copy(0, soft, losses)
        .index_copy(0, hard, body.token_losses(hidden[hard], packed.targets[hard]))
    )
