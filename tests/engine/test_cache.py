"""The cache gives what transformers' own gives, without copying all of it for every token."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from selfedit.engine.cache import RoomyLayer, make_cache
from selfedit.evaluation.machine import EMBEDDED


def states(rows: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, tokens, 3, generator=generator), torch.randn(rows, 2, tokens, 5, generator=generator)


@given(st.lists(st.one_of(st.integers(1, 40), st.lists(st.integers(0, 1), min_size=2, max_size=4)), max_size=30))
def test_whatever_is_appended_and_selected_it_holds_what_transformers_own_layer_holds(steps: list[object]) -> None:
    ours, theirs, rows = RoomyLayer(), DynamicLayer(), 2
    for number, step in enumerate([3, *steps]):
        if isinstance(step, int):
            new = states(rows, step, number)
            pairs = zip(ours.update(*new), theirs.update(*new), strict=True)
        else:
            index = torch.tensor(step)
            ours.batch_select_indices(index)
            theirs.batch_select_indices(index)
            rows = len(index)
            pairs = zip((ours.keys, ours.values), (theirs.keys, theirs.values), strict=True)
        assert all(torch.equal(mine, other) for mine, other in pairs)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_most_tokens_are_appended_in_place() -> None:
    layer = RoomyLayer()
    layer.update(*states(2, 40, 0))
    places = {layer.update(*states(2, 1, t))[0].data_ptr() for t in range(1, 161)}
    assert len(places) < 12


def test_rows_that_were_selected_apart_do_not_share_memory() -> None:
    layer = RoomyLayer()
    before, _ = layer.update(*states(2, 4, 0))
    kept = before.clone()
    layer.batch_select_indices(torch.tensor([1, 1]))
    layer.update(*states(2, 1, 1))
    assert torch.equal(before, kept)


def test_layers_of_other_kinds_stay_transformers_own() -> None:
    config = AutoConfig.from_pretrained(EMBEDDED)
    assert {type(layer) for layer in make_cache(config).layers} == {RoomyLayer}
    config.sliding_window, config.layer_types = 8, ["sliding_attention", "full_attention"] * 3
    kinds = [type(layer) for layer in make_cache(config).layers]
    assert kinds == [DynamicSlidingWindowLayer, RoomyLayer] * 3
