"""Sequences of K members as one batch with little padding, or none.

`lay_flat` puts all tokens into one row, member by member, where the attention knows which of them belong together (`Blocks`).
`pack` makes do with masks: every member gets the same number of rows, and several of its short sequences share a row: each sees
only itself (block-diagonal causal mask) and counts its positions from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ...types import TrainSequence
from .blocks import Blocks


@dataclass(frozen=True)
class Packed:
    """K members x S rows of T tokens, member by member (N = K * S), and what is predicted from where.

    ids, positions: (N, T) int64; where a position is not the one before plus 1, another sequence (or padding) starts, and
    from that the attention masks are made. sources (M) are flat indices into N * T whose hidden state predicts targets (M);
    both in the order of members, then of their sequences as given. counts[k][s] of them belong to sequence s of member k,
    which lies at the flat index starts[k][s]. seen (N, T) int64 is 0 for tokens that no token sees, None where all are seen.
    Laid flat (N = 1), spans[k] tokens are member k's, and blocks says which of them
    see each other; else every member has as many.
    """

    ids: Tensor
    positions: Tensor
    sources: Tensor
    targets: Tensor
    counts: list[list[int]]
    starts: list[list[int]]
    spans: list[int] | None = None
    blocks: Blocks | None = None
    seen: Tensor | None = None

    @property
    def member_counts(self) -> list[int]:
        """Targets of each member."""
        return [sum(counts) for counts in self.counts]


def bins_of(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: indices of ``lengths`` in bins whose sums are at most ``capacity``."""
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = next((b for b, free in enumerate(room) if free >= lengths[i]), None)
        if at is None:
            bins.append([])
            room.append(capacity)
            at = len(bins) - 1
        bins[at].append(i)
        room[at] -= lengths[i]
    return bins


def parts_of(sequences: Sequence[TrainSequence], tokens: float, targets: float = math.inf) -> Iterator[list[TrainSequence]]:
    """Sequences in their order, in parts of at most so many tokens and targets (a longer one is a part of its own)."""
    part: list[TrainSequence] = []
    held = wanted = 0
    for sequence in sequences:
        held, wanted = held + len(sequence.ids), wanted + sequence.n_targets
        if part and (held > tokens or wanted > targets):
            yield part
            part, held, wanted = [], len(sequence.ids), sequence.n_targets
        part.append(sequence)
    if part:
        yield part


def plan(lengths_K: Sequence[Sequence[int]], half_cost: int | None) -> tuple[int, list[list[list[int]]]]:
    """The row length T and each member's bins with the least work, about ``rows * T * (1 + T / half_cost)``.

    ``half_cost`` is the T at which attention costs as much as the rest of the model; None: every sequence has its own row.
    """
    longest = max(length for lengths in lengths_K for length in lengths)
    if half_cost is None:
        return longest, [[[i] for i in range(len(lengths))] for lengths in lengths_K]
    fullest = max(sum(lengths) for lengths in lengths_K)
    best: tuple[float, int, list[list[list[int]]]] | None = None
    for rows in range(1, max(map(len, lengths_K)) + 1):
        # The shortest row with which every member fits into so many, in steps that keep products aligned.
        capacity = -(-max(longest, -(-fullest // rows)) // 8) * 8
        while max(map(len, bins_K := [bins_of(lengths, capacity) for lengths in lengths_K])) > rows:
            capacity += 8
        work = rows * capacity * (1 + capacity / half_cost)
        if best is None or work < best[0]:
            best = (work, capacity, bins_K)
        if capacity < longest + 8:
            break  # no row can be shorter
    assert best is not None
    return best[1], best[2]


def pack(sequences_K: Sequence[Sequence[TrainSequence]], half_cost: int | None, device: torch.device) -> Packed:
    """One batch of all sequences; every member needs at least one, of at least one token."""
    length, bins_K = plan([[len(s.ids) for s in sequences] for sequences in sequences_K], half_cost)
    per_member = max(map(len, bins_K))
    n_rows = per_member * len(bins_K)
    ids = torch.zeros(n_rows, length, dtype=torch.long)
    positions = torch.arange(length).repeat(n_rows, 1)
    seen = torch.ones_like(ids) if any(s.padding for sequences in sequences_K for s in sequences) else None
    starts: list[list[int]] = []
    for member, (sequences, bins) in enumerate(zip(sequences_K, bins_K, strict=True)):
        start = [0] * len(sequences)
        for offset, chosen in enumerate(bins):
            row, at = member * per_member + offset, 0
            for number in chosen:
                end = at + len(sequences[number].ids)
                ids[row, at:end] = torch.tensor(sequences[number].ids)
                positions[row, at:end] -= at
                if seen is not None:
                    seen[row, end - sequences[number].padding : end] = 0
                start[number] = row * length + at
                at = end
        starts.append(start)
    seen = None if seen is None else seen.to(device)
    return _packed(ids, positions, sequences_K, starts, device, seen=seen)


def lay_flat(sequences_K: Sequence[Sequence[TrainSequence]], device: torch.device) -> Packed:
    """As `pack`, all tokens in one row behind each other, without any padding."""
    lengths_K = [[len(s.ids) for s in sequences] for sequences in sequences_K]
    lengths = [n for row in lengths_K for n in row]
    ends = iter(accumulate(lengths))
    starts = [[next(ends) - n for n in row] for row in lengths_K]
    ids = torch.tensor([[t for sequences in sequences_K for s in sequences for t in s.ids]])
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    spans, blocks = [sum(row) for row in lengths_K], Blocks.of(lengths, device)
    return _packed(ids, positions, sequences_K, starts, device, spans=spans, blocks=blocks)


def _packed(
    ids: Tensor,
    positions: Tensor,
    sequences_K: Sequence[Sequence[TrainSequence]],
    starts: list[list[int]],
    device: torch.device,
    **more: Any,
) -> Packed:
    """The batch with what is predicted from where."""
    sources: list[int] = []
    targets: list[int] = []
    counts: list[list[int]] = []
    for start, sequences in zip(starts, sequences_K, strict=True):
        counts.append([])
        for at, sequence in zip(start, sequences, strict=True):
            wanted = [t for t in range(1, len(sequence.ids)) if sequence.mask[t]]
            sources += [at + t - 1 for t in wanted]
            targets += [sequence.ids[t] for t in wanted]
            counts[-1].append(len(wanted))
    source, target = (torch.tensor(numbers, dtype=torch.long, device=device) for numbers in (sources, targets))
    return Packed(ids.to(device), positions.to(device), source, target, counts, starts, **more)
