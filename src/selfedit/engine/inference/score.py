"""Teacher forcing: log-probabilities of given tokens, losses of texts, and how far a policy moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor

from ...types import Scored, TrainSequence
from ..adapters.adapter_context import AdapterContext, Views, bank_views
from ..adapters.lora import Bank
from ..model.body import Body
from ..model.packing import Packed, parts_of
from .prefill import Prefill

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
        logprobs, best = _judged(body.logits(body.packed_hidden(packed)), packed.targets)
        counts = list(chain(*packed.counts))
        for k, some, hits in zip(own, torch.split(logprobs, counts), torch.split(best, counts), strict=True):
            found[k].append(Scored(tuple(some.tolist()), bool(hits.all())))
    return found


@dataclass(frozen=True)
class Pair:
    """A completion after its prompt, both of at least one token; it is the ``number``-th of its member."""

    member: int
    number: int
    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def sequence(self) -> TrainSequence:
        """Both, where the completion counts."""
        n = len(self.prompt)
        return TrainSequence((*self.prompt, *self.completion), (False,) * n + (True,) * len(self.completion))


@torch.no_grad()
def completion_logprobs(
    body: Body, place: AdapterContext, bank: Bank | None, pairs: Sequence[Pair], tokens_at_once: int, rows_at_once: int
) -> dict[tuple[int, int], Scored]:
    """Every completion under its member, by member and number, inside ``with place``; ``pairs`` are in that order.

    Where prompts that follow each other begin alike, such as questions about one passage, the beginning is read once.
    """
    found: dict[tuple[int, int], Scored] = {}
    for first in range(0, len(pairs), rows_at_once):
        found |= _after_beginnings(body, place, bank, pairs[first : first + rows_at_once], tokens_at_once)
    rest = [pair for pair in pairs if (pair.member, pair.number) not in found]
    rows = [[pair.sequence for pair in rest if pair.member == k] for k in range(1 + max((p.member for p in rest), default=-1))]
    scored = chain(*token_logprobs(body, place, bank, rows, tokens_at_once))
    return found | {(pair.member, pair.number): one for pair, one in zip(rest, scored, strict=True)}


def _after_beginnings(
    body: Body, place: AdapterContext, bank: Bank | None, pairs: Sequence[Pair], tokens_at_once: int
) -> dict[tuple[int, int], Scored]:
    """The completions, each prompt read in two parts; nothing where that saves little."""
    members = list(dict.fromkeys(pair.member for pair in pairs))
    grid, slots = list(pairs), None
    if bank is not None:  # every member has as many rows; its last pair fills what is left
        of_member = [[pair for pair in pairs if pair.member == member] for member in members]
        slots = max(map(len, of_member))
        grid = [own[min(slot, len(own) - 1)] for own in of_member for slot in range(slots)]
    prefill = Prefill(body)
    texts = [(*pair.prompt, *pair.completion[:-1]) for pair in grid]
    groups = prefill.groups([pair.prompt for pair in grid], texts, slots)
    if groups is None:
        return {}
    if bank is not None:
        place.bind(*bank_views(bank, members, body.dtype))
    hidden = prefill.begin(texts, groups)
    ends = torch.cat([row[-len(pair.completion) :] for row, pair in zip(hidden, grid, strict=True)])
    targets = torch.tensor([token for pair in grid for token in pair.completion], device=body.device)
    most = max(1, tokens_at_once * LOGITS_A_TOKEN // body.vocabulary)
    parts = [_judged(body.logits(some), wanted) for some, wanted in zip(ends.split(most), targets.split(most), strict=True)]
    logprobs, best = (torch.cat(column).split([len(pair.completion) for pair in grid]) for column in zip(*parts, strict=True))
    return {
        (pair.member, pair.number): Scored(tuple(some.tolist()), bool(hits.all()))
        for pair, some, hits in zip(grid, logprobs, best, strict=True)
    }


def _judged(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log p (M) of each target under logits (M, V), and whether it is the most likely token."""
    return torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0], logits.argmax(-1) == targets


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
