"""Padding that counts in the loss and is seen by nobody: what SEAL's public code trains on, in the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_updates import update

from benchmarks.peft_baseline import Padding, collate, run_baseline
from benchmarks.peft_reference import load_base, peft_fit
from conftest import FAMILIES, WINDOW
from selfedit.edits.parsing.lines import padded as fill_up
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.adapters.targets import find_layout
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training import fit
from selfedit.evaluation.peft_parity import distance
from selfedit.types import TrainSequence, Update

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

EOS, WIDTH = 2, 40


def padded(one: Update, by: int = 0) -> Update:
    """Filled up with EOS to `WIDTH` tokens, or by so many."""
    filled = [fill_up([s], len(s.ids) + by if by else WIDTH, EOS)[0] for s in one.sequences]
    return replace(one, sequences=tuple(filled))


def start_of(engine: TorchEngine, one: Update) -> LoraAdapter:
    return initial_adapter(engine.layout, one.rank, one.alpha, one.seed)


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # GPT-2's own dropout is on while the Trainer trains
def test_padded_sequences_train_as_the_seal_baseline_does(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path]
) -> None:
    """The baseline pads by itself, in the Trainer; both also without the padding in the loss, which is another training."""
    engine, base = engines[family], load_base(checkpoints[family])
    one = update(1, batch_size=1)
    start, wide = start_of(engine, one), Padding(WIDTH, in_loss=True)
    bank = engine.apply([padded(one), one], on=None)
    seal = run_baseline("seal", base, one, start, [], max_new_tokens=4, padding=wide)
    clean = run_baseline("trainer", base, one, start, [], max_new_tokens=4)
    assert distance(bank.adapter(0), seal.adapter) <= 1e-4
    assert distance(bank.adapter(1), clean.adapter) <= 1e-4
    assert distance(bank.adapter(0), clean.adapter) > 0.1
    assert bank.trained_tokens[0] == seal.positions == one.steps * WIDTH
    for sequence, filled in zip(one.sequences, padded(one).sequences, strict=True):
        with torch.no_grad():  # a first step's loss is the base's: the adapter's B is zero
            loss = float(base(**collate([sequence], wide, EOS)).loss)
        assert engine.apply([replace(one, sequences=(filled,), steps=1)], on=None).losses[0] == pytest.approx([loss], rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_hides_the_padding_as_peft_does(
    family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path]
) -> None:
    """Also in one batch with a member without padding. None is longer than a sliding window: all of it sees some text."""
    engine = engines[family]
    ones = [padded(update(2, steps=4), WINDOW - 2), padded(update(3, batch_size=4, steps=4), 3), update(4, steps=4)]
    bank = engine.apply(ones, on=None)
    for k, one in enumerate(ones):
        expected, losses = peft_fit(checkpoints[family], one, start_of(engine, one))
        assert distance(bank.adapter(k), expected) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-4)


def test_padding_that_is_seen_is_another_training(llama: TorchEngine) -> None:
    hidden = padded(update(5, batch_size=1))
    seen = replace(hidden, sequences=tuple(replace(s, padding=0) for s in hidden.sequences))
    bank = llama.apply([hidden, seen], on=None)
    assert distance(bank.adapter(0), bank.adapter(1)) > 0.1


def test_layers_below_the_adapters_hide_it_too(checkpoints: dict[str, Path]) -> None:
    upper = TorchEngine.load(str(checkpoints["qwen2"]), device="cpu", targets="all-linear@1:")
    one = padded(update(6))
    bank = upper.apply([one], on=None)
    layout = find_layout(load_base(checkpoints["qwen2"]), "all-linear@1:", "")
    start = initial_adapter(layout, one.rank, one.alpha, one.seed)
    expected, _ = peft_fit(checkpoints["qwen2"], one, start, start.target_modules)
    assert distance(bank.adapter(0), expected) <= 1e-4


@pytest.mark.parametrize("padding", [-1, 3])
def test_padding_leaves_something_to_see(llama: TorchEngine, padding: int) -> None:
    one = replace(update(7), sequences=(TrainSequence((5, 6, 7), (True,) * 3, padding),))
    assert llama.check(one) == f"sequences[0]: a padding of {padding} tokens leaves none"


def test_the_delivery_probe_leaves_padding_away(llama: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 048 tokens most would be padding, each with logits over the whole vocabulary."""
    probed: list[int] = []
    real = fit.token_logprobs

    def seen(*args: Any) -> Any:
        probed.extend(len(s.ids) + s.padding for row in args[3] for s in row)
        return real(*args)

    monkeypatch.setattr(fit, "token_logprobs", seen)
    one = update(8)
    assert llama.apply([padded(one)], on=None).shift[0] > 0
    assert set(probed) == {min(len(s.ids) for s in one.sequences)}
