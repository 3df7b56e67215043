from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_updates import prompts, strong, update

from selfedit.engine.decode import Row, sampler
from selfedit.engine.lora import Bank, LoraAdapter, initial_adapter
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
    return engine.bank([strong(initial_adapter(engine._layout, r, 4.0, k), seed=k) for k, r in enumerate(ranks)])


def test_greedy_equals_generate(family: str, engines: dict[str, TorchEngine]) -> None:
    engine = engines[family]
    asked = prompts(1, LENGTHS)
    (ours,) = engine.answer(None, [asked], max_new_tokens=12)
    assert ours == [engine.decode(generated(engine, prompt)) for prompt in asked]


def test_each_member_answers_as_peft_with_its_adapter_alone(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = engines[family]
    bank = strong_bank(engine, 3)
    asked = [prompts(1, LENGTHS), [], prompts(2, (8, 2))]
    ours = engine.answer(bank, asked, max_new_tokens=12)
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
    narrow = TorchEngine.load(str(checkpoints["llama"]), device="cpu", rows_at_once=3)
    asked = [prompts(k, LENGTHS[: k + 1]) for k in range(4)]
    bank = strong_bank(llama, 4)
    assert narrow.answer(bank, asked, max_new_tokens=7) == llama.answer(bank, asked, max_new_tokens=7)


def test_a_text_ends_at_eos_while_its_neighbours_go_on(llama: TorchEngine) -> None:
    asked = prompts(4, LENGTHS)
    whole = [generated(llama, prompt) for prompt in asked]
    bank = strong_bank(llama, 3)
    ends = set(range(0, 260, 5))  # every fifth token: texts end at many places, and rows are dropped many times
    stops, llama._stops = llama._stops, frozenset(ends)
    try:
        (ours,) = llama.answer(None, [asked], max_new_tokens=12)
        together = llama.answer(bank, [asked] * 3, max_new_tokens=12)
        alone = [llama.answer(llama.bank([bank.adapter(k)]), [[p]], max_new_tokens=12) for k in range(3) for p in asked]
    finally:
        llama._stops = stops
    cut = [next((tokens[:i] for i, t in enumerate(tokens) if t in ends), tokens) for tokens in whole]
    assert ours == [llama.decode(tokens) for tokens in cut]
    assert len({len(text) for row in together for text in row}) > 2
    assert [text for row in together for text in row] == [text for ((text,),) in alone]


def test_sampling_does_not_depend_on_batch_neighbours(family: str, engines: dict[str, TorchEngine]) -> None:
    engine = engines[family]
    asked, seeds = [p for p in prompts(3, LENGTHS) for _ in range(2)], list(range(10))
    how = {"max_new_tokens": 10, "temperature": 1.1, "top_p": 0.9}
    together = engine.sample(asked, seeds, **how)
    alone = [engine.sample([p], [s], **how)[0] for p, s in zip(asked, seeds, strict=True)]
    shuffled = engine.sample(asked[::-1], seeds[::-1], **how)[::-1]
    for one, other, third in zip(together, alone, shuffled, strict=True):
        assert one.token_ids == other.token_ids == third.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert len({one.token_ids for one in together}) == 10


def test_a_sample_records_what_it_was_drawn_from(llama: TorchEngine) -> None:
    (one,) = llama.sample(prompts(5, (6,)), [7], max_new_tokens=8, temperature=1.0, top_p=1.0)
    ((scored,),) = llama.score(None, [[(one.prompt_ids, one.token_ids)]])
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


def test_a_text_stops_at_the_end_of_the_window(llama: TorchEngine) -> None:
    asked = prompts(6, (90, 4))
    long, short = llama.sample(asked, [1, 2], max_new_tokens=20, temperature=1.0, top_p=1.0)
    assert len(long.token_ids) == 6 or long.finished
    assert len(short.token_ids) == 20 or short.finished


def test_what_cannot_be_decoded_is_refused(llama: TorchEngine) -> None:
    how = {"max_new_tokens": 4, "temperature": 1.0, "top_p": 1.0}
    for prompt in ([], [5] * 96, [260]):
        with pytest.raises(ModelError):
            llama.sample([prompt], [0], **how)
    for change in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0}):
        with pytest.raises(SettingsError):
            llama.sample([[5]], [0], **{**how, **change})
    with pytest.raises(SettingsError):
        llama.answer(strong_bank(llama, 2), [[[5]]], max_new_tokens=3)


def test_a_mounted_policy_writes_and_is_gone_when_unmounted(llama: TorchEngine) -> None:
    asked = [prompts(8, LENGTHS)]
    bare = llama.answer(None, asked, max_new_tokens=9)
    policy = strong(initial_adapter(llama._layout, 4, 8.0, 0))
    llama.mount(policy)
    mounted = llama.answer(None, asked, max_new_tokens=9)
    llama.mount(None)
    assert mounted != bare
    assert llama.answer(None, asked, max_new_tokens=9) == bare
    assert llama.answer(llama.bank([policy]), asked, max_new_tokens=9) == mounted


def test_mounting_another_bases_adapter_is_refused_and_changes_nothing(llama: TorchEngine) -> None:
    policy = strong(initial_adapter(llama._layout, 4, 8.0, 0))
    path, (a, b) = next(iter(policy.tensors.items()))
    wrong: list[LoraAdapter] = [replace(policy, tensors={path: (a[:, 1:], b)}), replace(policy, tensors={"no": (a, b)})]
    for adapter in wrong:
        with pytest.raises(ModelError):
            llama.mount(adapter)
        with pytest.raises(ModelError):
            llama.bank([adapter])
    assert llama.mounted is None


def test_an_updates_start_answers_like_the_base(llama: TorchEngine) -> None:
    one = update(1)
    bank = llama.bank([initial_adapter(llama._layout, one.rank, one.alpha, one.seed)])
    asked = [prompts(9, LENGTHS)]
    assert llama.answer(bank, asked, max_new_tokens=8) == llama.answer(None, asked, max_new_tokens=8)
