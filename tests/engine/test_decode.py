from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_updates import prompts, strong, update

from selfedit.config import AtOnce
from selfedit.engine.adapters.lora import Bank, LoraAdapter, initial_adapter
from selfedit.engine.inference.decode import Row, sampler
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError, SettingsError

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LENGTHS = (3, 17, 9, 1, 30)


def generated(engine: TorchEngine, prompt: Sequence[int], max_new_tokens: int = 12) -> list[int]:
    """Transformers' own greedy decoding of one prompt."""
    ids = torch.tensor([prompt])
    out = engine.model.generate(ids, do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0)
    return [int(t) for t in out[0, len(prompt) :]]


def strong_bank(engine: TorchEngine, n: int) -> Bank:
    ranks = [1 + 3 * k for k in range(n)]
    return engine.bank([strong(initial_adapter(engine.layout, r, 4.0, k), seed=k) for k, r in enumerate(ranks)])


def test_greedy_equals_generate(family: str, engines: dict[str, TorchEngine]) -> None:
    engine = engines[family]
    asked = prompts(1, LENGTHS)
    (ours,) = engine.answer([asked], on=None, max_new_tokens=12)
    assert ours == [engine.decode(generated(engine, prompt)) for prompt in asked]


def test_each_member_answers_as_peft_with_its_adapter_alone(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = engines[family]
    bank = strong_bank(engine, 3)
    asked = [prompts(1, LENGTHS), [], prompts(2, (8, 2))]
    ours = engine.answer(asked, on=None, members=bank, max_new_tokens=12)
    assert len({tuple(row) for row in ours}) == 3
    assert ours[1] == []
    for k in (0, 2):
        bank.adapter(k).save(tmp_path / str(k))
        base = AutoModelForCausalLM.from_pretrained(checkpoints[family])
        model = PeftModel.from_pretrained(base, tmp_path / str(k))
        for prompt, text in zip(asked[k], ours[k], strict=True):
            out = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=0)
            assert engine.decode(out[0, len(prompt) :].tolist()) == text


def test_answers_do_not_depend_on_rows_at_once(checkpoints: dict[str, Path], llama: TorchEngine) -> None:
    narrow = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(rows=3))
    asked = [prompts(k, LENGTHS[: k + 1]) for k in range(4)]
    bank = strong_bank(llama, 4)
    assert narrow.answer(asked, on=None, members=bank, max_new_tokens=7) == llama.answer(
        asked, on=None, members=bank, max_new_tokens=7
    )


def test_a_text_ends_at_eos_while_its_neighbours_go_on(llama: TorchEngine) -> None:
    asked = prompts(4, LENGTHS)
    whole = [generated(llama, prompt) for prompt in asked]
    bank = strong_bank(llama, 3)
    ends = set(range(0, 260, 5))  # every fifth token: texts end at many places, and rows are dropped many times
    stops, llama.stops = llama.stops, frozenset(ends)
    try:
        (ours,) = llama.answer([asked], on=None, max_new_tokens=12)
        together = llama.answer([asked] * 3, on=None, members=bank, max_new_tokens=12)
        alone = [
            llama.answer([[p]], on=None, members=llama.bank([bank.adapter(k)]), max_new_tokens=12)
            for k in range(3)
            for p in asked
        ]
    finally:
        llama.stops = stops
    cut = [next((tokens[:i] for i, t in enumerate(tokens) if t in ends), tokens) for tokens in whole]
    assert ours == [llama.decode(tokens) for tokens in cut]
    assert len({len(text) for row in together for text in row}) > 2
    assert [text for row in together for text in row] == [text for ((text,),) in alone]


def test_sampling_does_not_depend_on_batch_neighbours(family: str, engines: dict[str, TorchEngine]) -> None:
    engine = engines[family]
    asked, seeds = [p for p in prompts(3, LENGTHS) for _ in range(2)], list(range(10))
    how = {"max_new_tokens": 10, "temperature": 1.1, "top_p": 0.9}
    together = engine.sample(asked, seeds, on=None, **how)
    alone = [engine.sample([p], [s], on=None, **how)[0] for p, s in zip(asked, seeds, strict=True)]
    shuffled = engine.sample(asked[::-1], seeds[::-1], on=None, **how)[::-1]
    for one, other, third in zip(together, alone, shuffled, strict=True):
        assert one.token_ids == other.token_ids == third.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert len({one.token_ids for one in together}) == 10


def test_a_sample_records_what_it_was_drawn_from(llama: TorchEngine) -> None:
    (one,) = llama.sample(prompts(5, (6,)), [7], on=None, max_new_tokens=8, temperature=1.0, top_p=1.0)
    ((scored,),) = llama.score([[(one.prompt_ids, one.token_ids)]], on=None)
    assert one.logprobs == pytest.approx(scored.logprobs, abs=1e-4)
    ended = one.token_ids[-1] == llama.eos_id
    assert one.finished == ended
    assert one.text == llama.decode(one.token_ids[:-1] if ended else one.token_ids)


def drawn(temperature: float, top_p: float, p: list[float]) -> tuple[Counter[int], dict[int, float]]:
    """Tokens of 2000 rows with evenly spread uniforms, and the log-probability recorded for each token."""
    n = 2000
    rows = [Row(0, (1,), 1, torch.tensor([(i + 0.5) / n], dtype=torch.float64)) for i in range(n)]
    tokens, logprobs = sampler(temperature, top_p)(torch.tensor(p).log().expand(n, -1), rows)
    return Counter(tokens), dict(zip(tokens, logprobs, strict=True))


def test_sampling_follows_temperature_and_top_p() -> None:
    p = [0.5, 0.3, 0.15, 0.05]
    counts, logprobs = drawn(1.0, 1.0, p)
    assert [counts[t] / 2000 for t in range(4)] == pytest.approx(p, abs=2e-3)
    assert logprobs[2] == pytest.approx(math.log(0.15), abs=1e-5)
    counts, logprobs = drawn(1.0, 0.7, p)
    assert set(counts) == {0, 1}
    assert counts[0] / 2000 == pytest.approx(0.625, abs=2e-3)
    assert logprobs[1] == pytest.approx(math.log(0.375), abs=1e-5)
    counts, _ = drawn(0.5, 1.0, p)
    assert counts[0] / 2000 == pytest.approx(0.25 / sum(x * x for x in p), abs=2e-3)


def plain_sampling(logits: np.ndarray, temperature: float, top_p: float, u: float) -> tuple[int, float, np.ndarray, np.ndarray]:
    """Token, log-probability, the boundaries that ``u`` could lie on and those that ``top_p`` could: all in float64."""
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    reached = p[order].cumsum()
    inside = order[reached - p[order] < top_p] if top_p < 1 else order
    q = np.zeros_like(p)
    q[inside] = p[inside]
    boundaries = q.cumsum() / q.sum()
    token = int(np.searchsorted(boundaries, u, side="right"))
    return token, float(np.log(q[token] / q.sum())), boundaries, reached


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.integers(1, 3000),
    spread=st.floats(1e-3, 12.0) | st.just(0.0),  # smaller, and rounding decides which of two tokens is likelier
    temperature=st.floats(0.3, 3.0),
    top_p=st.floats(0.05, 0.99) | st.just(1.0),
    ties=st.booleans(),
)
def test_a_token_is_the_inverse_cdf_of_its_rows_next_uniform(
    seed: int, vocabulary: int, spread: float, temperature: float, top_p: float, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = 8
    logits = spread * torch.randn(n, vocabulary, generator=generator)
    if ties:
        logits = logits.round()
    uniforms = torch.rand(n, 3, dtype=torch.float64, generator=generator)
    rows = [Row(0, (1,), 3, uniforms[i], tokens=[0] * (i % 3)) for i in range(n)]
    ours = zip(*sampler(temperature, top_p)(logits, rows), strict=True)
    for i, (token, logprob) in enumerate(ours):
        u = float(uniforms[i, i % 3])
        expected, expected_logprob, boundaries, reached = plain_sampling(logits[i].double().numpy(), temperature, top_p, u)
        # Rounding may decide for another token where the uniform or top_p lies on a boundary.
        if min(abs(boundaries[:-1] - u), default=1.0) > 1e-9 and (top_p == 1 or min(abs(reached - top_p)) > 1e-9):
            assert token == expected
            assert logprob == pytest.approx(expected_logprob, abs=1e-6)


def draw(logits: list[float] | torch.Tensor, u: float, top_p: float) -> tuple[int, float]:
    """One token at temperature 1, and its log-probability."""
    row = Row(0, (1,), 1, torch.tensor([u], dtype=torch.float64))
    (token,), (logprob,) = sampler(1.0, top_p)(torch.as_tensor(logits)[None], [row])
    return token, logprob


def test_a_token_too_unlikely_to_be_represented_is_never_drawn() -> None:
    last = 1 - 2.0**-53  # the largest uniform
    for logits in ([0.0, -100.0], [0.0, -math.inf], [0.0] * 3 + [-50.0] * 1000):
        token, logprob = draw(logits, last, 1.0)
        assert token == logits.count(0.0) - 1
        assert logprob == pytest.approx(-math.log(logits.count(0.0)))
    assert draw([-100.0, 0.0], 0.0, 1.0) == (1, 0.0)


@pytest.mark.parametrize("top_p", [1e-300, 0.2])
def test_at_least_one_token_is_kept_the_first_of_equal_ones(top_p: float) -> None:
    assert draw([0.0, 1.0, 1.0, 1.0], 0.999, top_p) == (1, 0.0)
    assert {draw([0.0] * 100, u, min(top_p, 0.009)) for u in (0.0, 0.5, 0.999)} == {(0, 0.0)}


def test_a_vocabulary_of_a_million_adds_up_exactly() -> None:
    flat = torch.zeros(1 << 20)
    token, logprob = draw(flat, 1 - 2.0**-53, 1.0)
    assert token == (1 << 20) - 1
    assert logprob == pytest.approx(-20 * math.log(2), abs=1e-12)
    token, logprob = draw(flat, 1 - 2.0**-53, 0.5)
    assert token == (1 << 19) - 1
    assert logprob == pytest.approx(-19 * math.log(2), abs=1e-12)


def test_the_probabilities_recorded_are_those_of_what_could_be_drawn() -> None:
    logits = 4 * torch.randn(50, generator=torch.Generator().manual_seed(1))
    n = 4000
    rows = [Row(0, (1,), 1, torch.tensor([(i + 0.5) / n], dtype=torch.float64)) for i in range(n)]
    tokens, logprobs = sampler(0.8, 0.9)(logits.expand(n, -1), rows)
    counts, recorded = Counter(tokens), dict(zip(tokens, logprobs, strict=True))
    assert sum(math.exp(logprob) for logprob in recorded.values()) == pytest.approx(1.0, abs=1e-12)
    for token, count in counts.items():
        assert count / n == pytest.approx(math.exp(recorded[token]), abs=1 / n)


def test_logits_that_are_no_numbers_give_a_token_and_a_log_probability_that_says_so() -> None:
    for top_p in (0.9, 1.0):
        token, logprob = draw([math.nan, 0.0, 1.0], 0.7, top_p)
        assert token == 2
        assert math.isnan(logprob)


def test_a_text_stops_at_the_end_of_the_window(llama: TorchEngine) -> None:
    asked = prompts(6, (90, 4))
    long, short = llama.sample(asked, [1, 2], on=None, max_new_tokens=20, temperature=1.0, top_p=1.0)
    assert len(long.token_ids) == 6 or long.finished
    assert len(short.token_ids) == 20 or short.finished


def test_what_cannot_be_decoded_is_refused(llama: TorchEngine) -> None:
    how = {"max_new_tokens": 4, "temperature": 1.0, "top_p": 1.0}
    for prompt in ([], [5] * 96, [260]):
        with pytest.raises(ModelError):
            llama.sample([prompt], [0], on=None, **how)
    for change in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0}):
        with pytest.raises(SettingsError):
            llama.sample([[5]], [0], on=None, **{**how, **change})
    with pytest.raises(SettingsError):
        llama.answer([[[5]]], on=None, members=strong_bank(llama, 2), max_new_tokens=3)


def test_a_call_runs_under_the_adapter_that_it_names_and_leaves_the_base_bare(llama: TorchEngine) -> None:
    asked = [prompts(8, LENGTHS)]
    bare = llama.answer(asked, on=None, max_new_tokens=9)
    policy = strong(initial_adapter(llama.layout, 4, 8.0, 0))
    adapted = llama.answer(asked, on=policy, max_new_tokens=9)
    assert adapted != bare
    assert llama.answer(asked, on=None, max_new_tokens=9) == bare
    assert llama.answer(asked, on=None, members=llama.bank([policy]), max_new_tokens=9) == adapted


def test_another_bases_adapter_is_refused(llama: TorchEngine) -> None:
    policy = strong(initial_adapter(llama.layout, 4, 8.0, 0))
    path, (a, b) = next(iter(policy.tensors.items()))
    wrong: list[LoraAdapter] = [replace(policy, tensors={path: (a[:, 1:], b)}), replace(policy, tensors={"no": (a, b)})]
    for adapter in wrong:
        with pytest.raises(ModelError):
            llama.answer([prompts(8, LENGTHS)], on=adapter, max_new_tokens=9)
        with pytest.raises(ModelError):
            llama.bank([adapter])


def test_an_updates_start_answers_like_the_base(llama: TorchEngine) -> None:
    one = update(1)
    bank = llama.bank([initial_adapter(llama.layout, one.rank, one.alpha, one.seed)])
    asked = [prompts(9, LENGTHS)]
    assert llama.answer(asked, on=None, members=bank, max_new_tokens=8) == llama.answer(asked, on=None, max_new_tokens=8)
