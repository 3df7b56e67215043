"""Teacher forcing: log-probabilities of given tokens, losses of texts, and how far a policy moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...types import Scored, TrainSequence
from ..adapters.adapter_context import AdapterContext, Views, bank_views
from ..adapters.lora import Bank
from ..model.body import Body
from ..model.packing import Packed

# Of one forward, for each token that may go through the model: fp32 logits (numbers) kept at once.
LOGITS_A_TOKEN = 8192


@dataclass(frozen=True)
class _Job:
    member: int
    number: int
    sequence: TrainSequence


def _chunks(jobs: Sequence[_Job], vocabulary: int, tokens_at_once: int) -> Iterator[list[_Job]]:
    """Jobs in their order, cut so that one forward stays within its bounds (a longer job is one of its own)."""
    chunk: list[_Job] = []
    tokens = targets = 0
    for job in jobs:
        tokens += len(job.sequence.ids)
        targets += job.sequence.n_targets
        if chunk and (tokens > tokens_at_once or targets * vocabulary > tokens_at_once * LOGITS_A_TOKEN):
            yield chunk
            chunk, tokens, targets = [], len(job.sequence.ids), job.sequence.n_targets
        chunk.append(job)
    if chunk:
        yield chunk


def _pack_chunk(
    body: Body, place: AdapterContext, bank: Bank | None, chunk: Sequence[_Job]
) -> tuple[Packed, list[_Job]]:
    """One batch of the chunk with its members bound, and its jobs in the batch's order."""
    members = sorted({job.member for job in chunk})
    groups = [[job for job in chunk if job.member == member] for member in members]
    if bank is not None:
        place.bind(*bank_views(bank, members, body.dtype))
    packed = body.pack([[job.sequence for job in group] for group in groups])
    place.arrange(packed.spans)
    return packed, [job for group in groups for job in group]


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
    found: dict[tuple[int, int], Scored] = {}
    jobs = [_Job(k, i, sequence) for k, row in enumerate(sequences) for i, sequence in enumerate(row)]
    for chunk in _chunks(jobs, body.vocabulary, tokens_at_once):
        packed, order = _pack_chunk(body, place, bank, chunk)
        logits = body.logits(body.packed_hidden(packed))
        logprobs = torch.log_softmax(logits, -1).gather(-1, packed.targets[:, None])[:, 0]
        best = logits.argmax(-1) == packed.targets
        counts = [count for counts in packed.counts for count in counts]
        for job, some, hits in zip(order, torch.split(logprobs, counts), torch.split(best, counts), strict=True):
            found[job.member, job.number] = Scored(tuple(some.tolist()), bool(hits.all()))
    return [[found[k, i] for i in range(len(row))] for k, row in enumerate(sequences)]


@torch.no_grad()
def mean_kl(body: Body, adapter: Views, sequences: Sequence[TrainSequence], tokens_at_once: int) -> float:
    """Mean over all target tokens of KL(base with ``adapter`` || bare base), in nats."""
    total, n = 0.0, 0
    for chunk in _chunks([_Job(0, i, s) for i, s in enumerate(sequences)], 3 * body.vocabulary, tokens_at_once):
        packed = body.pack([[job.sequence for job in chunk]])

        def log_p(packed: Packed = packed) -> Tensor:
            return torch.log_softmax(body.logits(body.packed_hidden(packed)), -1)

        bare = log_p()
        with AdapterContext(body.model, adapter, []):
            ours = log_p()
        total += float((ours.exp() * (ours - bare)).sum(-1).double().sum())
        n += len(packed.targets)
    return total / n
