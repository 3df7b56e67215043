"""Distilled sequences against PEFT, whose reference is its own base with the adapter switched off."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_updates import strong, update

from benchmarks.peft_reference import peft_fit
from conftest import FAMILIES
from selfedit.engine.adapters.lora import LoraAdapter, initial_adapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.peft_parity import distance
from selfedit.types import Update

# PEFT 0.21 reads a property that transformers 5.23 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def distilled(one: Update, every: int, weight: float) -> Update:
    sequences = [replace(s, distilled=weight * (i % every == 0)) for i, s in enumerate(one.sequences)]
    return replace(one, sequences=tuple(sequences))


def start_of(engine: TorchEngine, one: Update) -> LoraAdapter:
    return initial_adapter(engine.layout, one.rank, one.alpha, one.seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixture_trains_as_with_peft(family: str, engines: dict[str, TorchEngine], checkpoints: dict[str, Path]) -> None:
    """Beside a member without any, and from an adapter that is off the base already, so that there is something to give back."""
    engine = engines[family]
    plain = update(1, steps=3, batch_size=3)
    start = strong(start_of(engine, plain), size=0.05)
    ones = [distilled(plain, 2, 2.5), plain]
    bank = engine.apply(ones, on=None, init=start)
    for k, one in enumerate(ones):
        expected, losses = peft_fit(checkpoints[family], one, start)
        assert distance(bank.adapter(k), expected, start) <= 1e-4
        assert bank.losses[k] == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert distance(bank.adapter(0), bank.adapter(1), start) > 0.1


def test_the_base_has_nothing_to_learn_from_itself(llama: TorchEngine) -> None:
    bank = llama.apply([distilled(update(1), 1, 1.0)], on=None)
    assert bank.losses[0][0] == pytest.approx(0.0, abs=1e-6)
    assert max(bank.losses[0]) < 1e-3  # AdamW makes whole steps of what rounding leaves


def test_the_reference_is_the_bare_base_and_not_the_policy_underneath(llama: TorchEngine) -> None:
    one = distilled(update(4, steps=1, batch_size=50), 1, 1.0)
    policy = strong(start_of(llama, one), size=0.05)
    on_top = llama.apply([one], on=policy).losses[0]
    assert on_top == pytest.approx(llama.apply([one], on=None, init=policy).losses[0], rel=1e-4)
    assert on_top[0] > 1e-3


def test_layers_below_the_adapters_are_in_the_reference_too(checkpoints: dict[str, Path]) -> None:
    upper = TorchEngine.load(str(checkpoints["qwen2"]), device="cpu", targets="all-linear@1:")
    one = distilled(update(6), 2, 1.0)
    one = replace(one, sequences=one.sequences * 2)  # the same ones again, as replay has them
    start = start_of(upper, one)
    expected, losses = peft_fit(checkpoints["qwen2"], one, start, start.target_modules)
    bank = upper.apply([one], on=None)
    assert distance(bank.adapter(0), expected) <= 1e-4
    assert bank.losses[0] == pytest.approx(losses, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_is_a_finite_number(llama: TorchEngine, weight: float) -> None:
    one = distilled(update(7), 1, weight)
    assert llama.check(one) == "sequences[0]: distilled is not a finite number of at least 0"
