from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from made_updates import beside, prompts, sequence, strong
from test_decode import generated, strong_bank

from selfedit.config import AtOnce
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import UpdateError


def test_scores_are_the_models_own_log_probabilities(family: str, engines: dict[str, TorchEngine]) -> None:
    engine = engines[family]
    pairs = [(tuple(p[:-2]), tuple(p[-2:])) for p in prompts(1, (5, 12, 3))]
    (scored,) = engine.score([pairs], on=None)
    for (prompt, completion), one in zip(pairs, scored, strict=True):
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[range(2), list(completion)]
        assert one.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_greedy_flag_agrees_with_what_greedy_decoding_writes(llama: TorchEngine) -> None:
    asked = prompts(2, (4, 11, 20, 7))
    written = [generated(llama, prompt, 6) for prompt in asked]
    other = [[*tokens[:-1], (tokens[-1] + 1) % 260] for tokens in written]
    (right,) = llama.score([list(zip(asked, written, strict=True))], on=None)
    (wrong,) = llama.score([list(zip(asked, other, strict=True))], on=None)
    assert [one.greedy for one in right] == [True] * 4
    assert [one.greedy for one in wrong] == [False] * 4


def test_every_member_scores_its_own_answers_as_greedy(llama: TorchEngine) -> None:
    bank = strong_bank(llama, 3)
    asked = [prompts(k, (4, 9)) for k in range(3)]
    completions = []
    for k in range(3):
        how = {"on": bank.adapter(k), "max_new_tokens": 5, "temperature": 1e-4, "top_p": 1.0}
        row = [llama.sample([p], [0], **how)[0] for p in asked[k]]
        completions.append([(one.prompt_ids, one.token_ids) for one in row])
    scored = llama.score(completions, on=None, members=bank)
    assert all(one.greedy for row in scored for one in row)
    assert not all(one.greedy for row in llama.score(completions, on=None) for one in row)


def test_scores_do_not_depend_on_how_they_are_cut(llama: TorchEngine, checkpoints: dict[str, Path]) -> None:
    bank = strong_bank(llama, 3)
    pairs = [[(p[:2], p[2:]) for p in prompts(k, (9, 5, 14)[: k + 1])] for k in range(3)]
    whole = llama.score(pairs, on=None, members=bank)
    cut = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(tokens=12)).score(pairs, on=None, members=bank)
    for row, other_row in zip(whole, cut, strict=True):
        for one, other in zip(row, other_row, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_sequence_loss_is_the_mean_over_target_tokens(llama: TorchEngine) -> None:
    rng = random.Random(1)
    sequences = [sequence(rng, 12, masked=5), sequence(rng, 40)]
    losses = llama.sequence_loss(sequences, on=None)
    for one, loss in zip(sequences, losses, strict=True):
        labels = torch.tensor([one.ids]).masked_fill(~torch.tensor([one.mask]), -100)
        with torch.no_grad():
            expected = llama.model(input_ids=torch.tensor([one.ids]), labels=labels).loss
        assert loss == pytest.approx(float(expected), rel=1e-5)


def test_kl_is_nought_without_a_policy_and_right_with_one(llama: TorchEngine) -> None:
    rng = random.Random(2)
    sequences = [sequence(rng, 9, masked=4), sequence(rng, 15)]
    assert llama.token_kl(sequences, on=None) == 0.0
    rows = []
    policy = strong(initial_adapter(llama.layout, 4, 8.0, 0), size=0.1)
    for adapter in (policy, None):
        measured = llama.token_kl(sequences, on=adapter) if adapter else 0.0
        with beside(llama, adapter), torch.no_grad():
            logits = [llama.model(input_ids=torch.tensor([s.ids])).logits[0] for s in sequences]
        kept = [row[t - 1] for row, s in zip(logits, sequences, strict=True) for t in range(1, len(s.ids)) if s.mask[t]]
        rows.append((measured, torch.log_softmax(torch.stack(kept).double(), -1)))
    (measured, ours), (_, bare) = rows
    expected = float((ours.exp() * (ours - bare)).sum(-1).mean())
    assert measured == pytest.approx(expected, rel=1e-4)
    assert measured > 0.01


def test_nothing_to_score_is_refused(llama: TorchEngine) -> None:
    with pytest.raises(UpdateError):
        llama.score([[([5], [])]], on=None)
    with pytest.raises(UpdateError):
        llama.score([[([], [5])]], on=None)
    with pytest.raises(UpdateError):
        llama.score([[([5] * 90, [5] * 10)]], on=None)
    with pytest.raises(UpdateError):
        llama.token_kl([], on=None)
