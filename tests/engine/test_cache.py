"""The cache gives what transformers' own gives, without copying all of it for every token."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from selfedit.engine.inference.cache import RoomyLayer, make_cache
from selfedit.evaluation.machine import EMBEDDED


def states(rows: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, tokens, 3, generator=generator), torch.randn(rows, 2, tokens, 5, generator=generator)


Step = int | tuple[str, list[int]]
ROWS = st.lists(st.integers(0, 1), min_size=2, max_size=4)
CHANGES = st.tuples(st.sampled_from(["select", "reorder", "repeat", "crop", "reset"]), ROWS)


@given(st.lists(st.one_of(st.integers(1, 40), CHANGES), max_size=30))
def test_whatever_is_done_to_it_it_holds_what_transformers_own_layer_holds(steps: list[Step]) -> None:
    ours, theirs, rows = RoomyLayer(), DynamicLayer(), 2
    for number, step in enumerate([3, *steps]):
        if isinstance(step, int):
            new = states(rows, step, number)
            pairs = zip(ours.update(*new), theirs.update(*new), strict=True)
            assert all(torch.equal(mine, other) for mine, other in pairs)
        else:
            rows, _ = (changed(layer, *step, rows) for layer in (ours, theirs))
        assert ours.get_seq_length() == theirs.get_seq_length()
        if ours.get_seq_length():
            assert torch.equal(ours.keys, theirs.keys)
            assert torch.equal(ours.values, theirs.values)


def changed(layer: DynamicLayer, how: str, index: list[int], rows: int) -> int:
    """Do what generation does to a layer (`reorder` permutes, as beams are); the rows that it has then."""
    if how == "reset":
        layer.reset()
    elif how == "crop" and layer.get_seq_length() > 1:
        layer.crop(-1)
    elif how == "select":
        layer.reorder_cache(torch.tensor(index))
        return len(index) if layer.get_seq_length() else rows
    elif how == "reorder":
        layer.reorder_cache(torch.tensor([(i + index[0]) % rows for i in range(rows)]))
    elif how == "repeat" and layer.get_seq_length() and rows < 32:
        layer.batch_repeat_interleave(2)
        return 2 * rows
    return rows


def test_most_tokens_are_appended_in_place() -> None:
    layer = RoomyLayer()
    layer.update(*states(2, 40, 0))
    places = {layer.update(*states(2, 1, t))[0].data_ptr() for t in range(1, 161)}
    assert len(places) < 12


def test_rows_that_were_selected_apart_do_not_share_memory() -> None:
    layer = RoomyLayer()
    before, _ = layer.update(*states(2, 4, 0))
    kept = before.clone()
    layer.reorder_cache(torch.tensor([1, 1]))
    layer.update(*states(2, 1, 1))
    assert torch.equal(before, kept)


def test_layers_of_other_kinds_stay_transformers_own() -> None:
    config = AutoConfig.from_pretrained(EMBEDDED)
    assert {type(layer) for layer in make_cache(config).layers} == {RoomyLayer}
    config.sliding_window, config.layer_types = 8, ["sliding_attention", "full_attention"] * 3
    kinds = [type(layer) for layer in make_cache(config).layers]
    assert kinds == [DynamicSlidingWindowLayer, RoomyLayer] * 3
