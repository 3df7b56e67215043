from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_updates import sequence

from selfedit.engine.model.packing import bins_of, pack, plan
from selfedit.engine.torch_engine import TorchEngine
from selfedit.types import TrainSequence

LENGTHS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=5)


@given(LENGTHS)
@settings(deadline=None, max_examples=60)
def test_every_sequence_lies_in_one_row_that_holds_it(lengths_K: list[list[int]]) -> None:
    capacity, bins_K = plan(lengths_K, half_cost=100)
    for lengths, bins in zip(lengths_K, bins_K, strict=True):
        assert sorted(i for chosen in bins for i in chosen) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in chosen) <= capacity for chosen in bins)


def test_equal_pieces_fill_their_bins() -> None:
    assert len(bins_of([5, 5, 5, 5], 10)) == 2


def test_packing_wastes_less_than_padding() -> None:
    lengths_K = [[100, *[20] * 7] for _ in range(4)]
    capacity, bins_K = plan(lengths_K, half_cost=768)
    assert max(map(len, bins_K)) * capacity < 0.4 * 8 * 100


def test_packed_sequences_do_not_see_each_other(family: str, engines: dict[str, TorchEngine]) -> None:
    body, rng = engines[family].body, random.Random(0)
    groups = [[sequence(rng, n) for n in row] for row in ((4, 9, 3), (12, 2), (5, 5, 5, 5))]
    packed = pack(groups, body.half_cost, body.device)
    assert len(packed.ids) < sum(map(len, groups))
    with torch.no_grad():
        ours = torch.split(body.packed_hidden(packed), [n for counts in packed.counts for n in counts])
        for one, rows in zip([s for group in groups for s in group], ours, strict=True):
            alone = body.packed_hidden(pack([[one]], body.half_cost, body.device))
            torch.testing.assert_close(rows, alone, rtol=1e-4, atol=1e-4)


def test_targets_are_the_next_tokens_of_the_mask() -> None:
    one = TrainSequence((7, 8, 9, 10), (True, False, True, True))
    packed = pack([[one]], 100, torch.device("cpu"))
    assert packed.positions.tolist() == [list(range(8))]
    assert packed.sources.tolist() == [1, 2]
    assert packed.targets.tolist() == [9, 10]
    assert packed.member_counts == [2]
