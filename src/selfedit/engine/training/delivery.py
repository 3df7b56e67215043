"""Does a trained member reach the outputs? A number, as a flag could be set by the very code that forgot to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...types import Update
from ..adapters.adapter_context import AdapterContext, Views
from ..adapters.lora import Bank
from ..inference.score import token_logprobs
from ..model.body import Body
from .workers import Steps, on_workers


def shifts(
    bodies: Sequence[Body],
    shared: Views,
    bank: Bank,
    updates: Sequence[Update],
    members_at_once: int,
    tokens_at_once: int,
) -> list[float]:
    """Each member's largest absolute change of a target's log-probability (nats), over its shortest training sequence.

    With and without the members, beside the policy in ``shared``; both batches have the same shapes, so what changes nothing
    gives exactly 0.0. Costs two forwards of one short sequence a member, through the code by which members answer.
    """
    # Without its padding, unless nothing else is predicted: that may be most of it.
    texts = [[s.unpadded if s.unpadded.n_targets else s for s in update.sequences] for update in updates]
    shortest = [min(sequences, key=lambda s: len(s.ids)) for sequences in texts]
    found = [0.0] * len(bank)

    def probe(body: Body, members: range) -> Steps:
        sequences = [[s] if k in members and k not in bank.failed else [] for k, s in enumerate(shortest)]
        with AdapterContext(body.model, shared, [target.path for target in bank.layout.targets]) as place:
            without = token_logprobs(body, place, None, sequences, tokens_at_once)  # first: the members stay bound
            beside = token_logprobs(body, place, bank, sequences, tokens_at_once)
        for k in members:
            for ours, bare in zip(beside[k], without[k], strict=True):
                found[k] = float((torch.tensor(ours.logprobs) - torch.tensor(bare.logprobs)).abs().max())
        yield 0

    # On the workers, as whole products on one thread each: these are too small to share one between threads.
    cohorts = [range(len(bank))[at : at + members_at_once] for at in range(0, len(bank), members_at_once)]
    on_workers(bodies, cohorts, probe)
    return found
