"""A flat batch: no padding outside the attention, and every sequence sees itself alone."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_updates import mixed_updates, sequence

from selfedit.engine.model.blocks import Blocks
from selfedit.engine.model.packing import lay_flat, pack
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.peft_parity import distance

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12))
def test_every_token_has_one_place_and_padding_stays_in_its_sequence(lengths: list[int]) -> None:
    blocks = Blocks.of(lengths, CPU)
    assert blocks.tokens[blocks.places].tolist() == list(range(sum(lengths)))
    assert int(blocks.real.sum()) == sum(lengths)
    owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    for (n, length), tokens in zip(blocks.shapes, blocks.tokens.split([n * length for n, length in blocks.shapes]), strict=True):
        assert (owner[tokens.view(n, length)] == owner[tokens.view(n, length)[:, :1]]).all()
    assert len(blocks.tokens) <= max(2 * sum(lengths), 32 * len(lengths))


def test_a_window_hides_what_lies_before_it() -> None:
    seen = Blocks.of([5], CPU).mask(5, 2, torch.zeros(1))[0, 0] == 0
    assert seen.tolist() == torch.ones(5, 5).tril().triu(-1).bool().tolist()


def test_a_flat_batch_gives_what_shared_rows_give(family: str, engines: dict[str, TorchEngine]) -> None:
    body, rng = engines[family].body, random.Random(0)
    assert body.flat
    groups = [[sequence(rng, n) for n in row] for row in ((4, 50, 3), (12, 2), (5, 5, 5, 5))]
    flat, rows = lay_flat(groups, CPU), pack(groups, body.half_cost, CPU)
    assert flat.ids.shape == (1, 91)
    assert flat.spans == [57, 14, 20]
    with torch.no_grad():
        torch.testing.assert_close(body.packed_hidden(flat), body.packed_hidden(rows), rtol=1e-4, atol=1e-4)
    assert torch.equal(flat.targets, rows.targets)


def test_members_train_the_same_in_shared_rows(
    family: str, engines: dict[str, TorchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16 and on GPUs batches are not flat; those that are checked against PEFT, in fp32 on CPUs, are."""
    engine, updates = engines[family], mixed_updates()
    flat = engine.apply(updates, on=None)
    monkeypatch.setattr(engine.body, "flat", False)
    rows = engine.apply(updates, on=None)
    assert not torch.equal(flat.flat, rows.flat)  # it was another way
    for k in range(len(updates)):
        assert distance(flat.adapter(k), rows.adapter(k)) <= 1e-4


def test_most_architectures_take_flat_batches(engines: dict[str, TorchEngine]) -> None:
    assert {name for name, engine in engines.items() if not engine.body.flat} <= {"gemma2"}  # soft-capping
