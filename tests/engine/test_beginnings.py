"""Prompts that begin alike are read in two parts, and answered as if each had been read alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_updates import prompts, strong

from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.inference.beginnings import common_beginning, neighbours
from selfedit.engine.torch_engine import TorchEngine

ALIKE = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple), min_size=1, max_size=12)


@given(ALIKE)
def test_groups_are_neighbours_with_a_common_beginning_and_never_cost_more(asked: list[tuple[int, ...]]) -> None:
    groups = neighbours(asked)
    assert [i for group, _ in groups for i in group] == list(range(len(asked)))
    for group, n in groups:
        assert len({asked[i][:n] for i in group}) == 1
        assert all(n < len(asked[i]) for i in group)
    assert sum(n + sum(len(asked[i]) - n for i in group) for group, n in groups) <= sum(map(len, asked))


def test_questions_about_two_passages_are_two_groups() -> None:
    template, one, two = (7,) * 5, (1,) * 40, (2,) * 30
    asked = [(*template, *passage, question) for passage in (one, two) for question in range(3)]
    assert neighbours(asked) == [(range(3), 45), (range(3, 6), 35)]
    assert common_beginning(asked) == 5


@contextmanager
def tokens_read(engine: TorchEngine) -> Iterator[list[int]]:
    """The rows times tokens of each forward."""
    seen: list[int] = []
    hook = engine.body.model.get_input_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
    try:
        yield seen
    finally:
        hook.remove()


def common(engine: TorchEngine, passages: int, questions: int) -> list[list[list[int]]]:
    """Prompts with a long beginning of each passage's own, and ends of several lengths."""
    starts, ends = prompts(3, (24, 19, 22)[:passages]), prompts(4, (2, 5, 1, 3)[:questions])
    return [[[*start, *end] for end in ends] for start in starts]


@pytest.mark.parametrize("members", [False, True])
def test_a_common_beginning_is_read_once_and_changes_no_answer(
    family: str, engines: dict[str, TorchEngine], members: bool
) -> None:
    engine = engines[family]
    asked = common(engine, 3, 4)
    bank = engine.bank([strong(initial_adapter(engine.layout, 2 + k, 4.0, k), seed=k) for k in range(3)]) if members else None
    alone = [
        [
            engine.answer([[p] if k == j else [] for j in range(3)], on=None, members=bank, max_new_tokens=6)[k][0]
            if members
            else engine.answer([[p]], on=None, max_new_tokens=6)[0][0]
            for p in row
        ]
        for k, row in enumerate(asked)
    ]
    with tokens_read(engine) as seen:
        together = (
            engine.answer(asked, on=None, members=bank, max_new_tokens=6)
            if members
            else [engine.answer([[p for row in asked for p in row]], on=None, max_new_tokens=6)[0]]
        )
    assert [text for row in together for text in row] == [text for row in alone for text in row]
    if engine.body.half_cost is not None and not getattr(engine.model.config.get_text_config(), "sliding_window", None):
        assert seen[:2] == [3 * 24, 12 * 5]
    else:
        assert seen[0] == 12 * 29  # windows and states would count the padding between the parts


def test_samples_with_a_common_beginning_are_those_of_each_alone(llama: TorchEngine) -> None:
    asked = [p for row in common(llama, 2, 3) for p in row]
    how = {"on": None, "max_new_tokens": 8, "temperature": 1.0, "top_p": 0.95}
    together = llama.sample(asked, range(6), **how)  # type: ignore[arg-type]
    for i, prompt in enumerate(asked):
        (alone,) = llama.sample([prompt], [i], **how)  # type: ignore[arg-type]
        assert together[i].token_ids == alone.token_ids
        assert torch.allclose(torch.tensor(together[i].logprobs), torch.tensor(alone.logprobs), atol=1e-4)


@pytest.mark.parametrize("members", [False, True])
def test_completions_are_scored_after_a_beginning_that_is_read_once_as_each_alone(
    family: str, engines: dict[str, TorchEngine], members: bool
) -> None:
    engine = engines[family]
    asked = [row[: 4 - k] for k, row in enumerate(common(engine, 3, 4))]  # not the same number for each
    ends = prompts(5, (3, 1, 6, 2))
    pairs = [[(p, end) for p, end in zip([*row, row[-1]], ends, strict=False)] for row in asked]  # two ends of one prompt
    bank = engine.bank([strong(initial_adapter(engine.layout, 2 + k, 4.0, k), seed=k) for k in range(3)]) if members else None
    how: dict[str, Any] = {"on": None, "members": bank}
    rows = pairs if members else [[pair for row in pairs for pair in row]]
    alone = [
        engine.score([[pair] if k == j else [] for j in range(len(rows))], **how)[k][0]
        for k, row in enumerate(rows)
        for pair in row
    ]
    with tokens_read(engine) as seen:
        together = [one for row in engine.score(rows, **how) for one in row]
    assert [one.greedy for one in together] == [one.greedy for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    if engine.body.half_cost is not None and not getattr(engine.model.config.get_text_config(), "sliding_window", None):
        assert len(seen) == 2
        assert seen[0] == 3 * 24  # the beginnings
