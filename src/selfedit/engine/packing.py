"""Sequences of K members as one batch with little padding.

Every member gets the same number of rows (that is what lets one batched product serve all members), and several of its
short sequences share a row: each sees only itself (block-diagonal causal mask) and counts its positions from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..types import TrainSequence


@dataclass(frozen=True)
class Packed:
    """K members x S rows of T tokens, member by member (N = K * S), and what is predicted from where.

    ids, positions: (N, T) int64; where a position is not the one before plus 1, another sequence (or padding) starts, and
    from that the attention masks are made. sources (M) are flat indices into N * T whose hidden state predicts targets (M);
    both in the order of members, then of their sequences as given. counts[k][s] of them belong to sequence s of member k,
    which lies at the flat index starts[k][s].
    """

    ids: Tensor
    positions: Tensor
    sources: Tensor
    targets: Tensor
    counts: list[list[int]]
    starts: list[list[int]]

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


def pack(
    sequences_K: Sequence[Sequence[TrainSequence]], half_cost: int | None, device: torch.device, echo: bool = False
) -> Packed:
    """One batch of all sequences; every member needs at least one, of at least one token.

    ``echo``: the padding behind a row's sequences repeats the first of them, so that no routed expert sees tokens but theirs.
    """
    length, bins_K = plan([[len(s.ids) for s in sequences] for sequences in sequences_K], half_cost)
    per_member = max(map(len, bins_K))
    n_rows = per_member * len(bins_K)
    ids = torch.zeros(n_rows, length, dtype=torch.long)
    positions = torch.arange(length).repeat(n_rows, 1)
    sources: list[int] = []
    targets: list[int] = []
    counts: list[list[int]] = []
    starts: list[list[int]] = []
    for member, (sequences, bins) in enumerate(zip(sequences_K, bins_K, strict=True)):
        start = [0] * len(sequences)
        for offset, chosen in enumerate(bins):
            row, at = member * per_member + offset, 0
            for number in chosen:
                end = at + len(sequences[number].ids)
                ids[row, at:end] = torch.tensor(sequences[number].ids)
                positions[row, at:end] -= at
                start[number] = row * length + at
                at = end
            while echo and at < length:
                end = min(length, at + len(sequences[chosen[0]].ids))
                ids[row, at:end] = ids[row, : end - at]
                positions[row, at:end] -= at
                at = end
        starts.append(start)
        counts.append([])
        for number, sequence in enumerate(sequences):
            wanted = [t for t in range(1, len(sequence.ids)) if sequence.mask[t]]
            sources += [start[number] + t - 1 for t in wanted]
            targets += [sequence.ids[t] for t in wanted]
            counts[-1].append(len(wanted))
    source, target = (torch.tensor(numbers, dtype=torch.long, device=device) for numbers in (sources, targets))
    return Packed(ids.to(device), positions.to(device), source, target, counts, starts)
