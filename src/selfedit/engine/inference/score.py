"""Teacher forcing: log-probabilities of given tokens, losses of texts, and how far a policy moved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

import torch
from torch import Tensor

from ...types import Scored, TrainSequence
from ..adapters.adapter_context import AdapterContext, Views, bank_views
from ..adapters.lora import Bank
from ..model.body import Body
from ..model.packing import Packed, parts_of

# Of one forward, for each token that may go through the model: fp32 logits (numbers) kept at once.
LOGITS_A_TOKEN = 8192


@torch.no_grad()
def token_logprobs(
    body: Body,
    place: AdapterContext,
    bank: Bank | None,
    sequences: Sequence[Sequence[TrainSequence]],
    tokens_at_once: int,
) -> list[list[Scored]]:
    """Every sequence's target tokens under member k for ``sequences[k]``, inside ``with place``; all need a target.

    ``tokens_at_once`` bounds one forward.
    """
    found: list[list[Scored]] = [[] for _ in sequences]
    owners = iter([k for k, row in enumerate(sequences) for _ in row])
    most = tokens_at_once * LOGITS_A_TOKEN // body.vocabulary
    for part in parts_of(list(chain(*sequences)), tokens_at_once, most):
        own = list(islice(owners, len(part)))
        members = list(dict.fromkeys(own))
        if bank is not None:
            place.bind(*bank_views(bank, members, body.dtype))
        packed = body.pack([[s for s, k in zip(part, own, strict=True) if k == member] for member in members])
        place.arrange(packed.spans)
        logits = body.logits(body.packed_hidden(packed))
        logprobs = torch.log_softmax(logits, -1).gather(-1, packed.targets[:, None])[:, 0]
        best = logits.argmax(-1) == packed.targets
        counts = list(chain(*packed.counts))
        for k, some, hits in zip(own, torch.split(logprobs, counts), torch.split(best, counts), strict=True):
            found[k].append(Scored(tuple(some.tolist()), bool(hits.all())))
    return found


@torch.no_grad()
def mean_kl(body: Body, adapter: Views, sequences: Sequence[TrainSequence], tokens_at_once: int) -> float:
    """Mean over all target tokens of KL(base with ``adapter`` || bare base), in nats."""
    total, n = 0.0, 0
    for part in parts_of(sequences, tokens_at_once, tokens_at_once * LOGITS_A_TOKEN // (3 * body.vocabulary)):
        packed = body.pack([part])

        def log_p(packed: Packed = packed) -> Tensor:
            return torch.log_softmax(body.logits(body.packed_hidden(packed)), -1)

        bare = log_p()
        with AdapterContext(body.model, adapter, []):
            ours = log_p()
        total += float((ours.exp() * (ours - bare)).sum(-1).double().sum())
        n += len(packed.targets)
    return total / n
