"""Training of the embedded base: one command, which goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from tools.base.train import Recipe, main, train

SMALL = {"tokens": 400, "rows": 1, "width": 100, "d": 32, "layers": 1, "heads": 4, "d_ff": 48}


@pytest.fixture(autouse=True)
def _tokenizer_once(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.base.train.build_tokenizer", lambda: tokenizer)


def test_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    recipe = Recipe(**SMALL)
    assert recipe.steps == 4
    train(recipe, tmp_path / "whole", init=None, stop_at=None, compiled=False)
    for stop_at in (2, None):
        train(recipe, tmp_path / "stopped", init=None, stop_at=stop_at, compiled=False)
    whole, stopped = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    first = Recipe(**{**SMALL, "seed": 1})
    train(first, tmp_path / "other", init=None, stop_at=None, compiled=False)
    other = load_file(tmp_path / "other" / "model" / "model.safetensors")
    assert not all(torch.equal(whole[name], other[name]) for name in whole)


def test_the_command_in_the_bases_card_trains(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    card = (root / "src" / "selfedit" / "assets" / "base" / "README.md").read_text()
    assert "`python -m tools.base.train`" in card
    small = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    main(["--out", str(tmp_path), "--eager", "--threads", "1", *small, "--stop-at", "1"])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (32, 1)
