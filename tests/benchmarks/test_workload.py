"""What the benchmark of the inner loop calls useful work is what an edit cannot do without."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from benchmarks.workload import Case, checkpoint, useful_flops
from selfedit.types import TrainSequence, Update


def a_case(steps: int) -> Case:
    """Two sequences (5 and 3 tokens, 2 targets each) in one minibatch a step, and a prompt of 4 tokens."""
    sequences = tuple(TrainSequence(tuple(range(n)), (False,) * (n - 2) + (True,) * 2) for n in (5, 3))
    update = Update(sequences, steps=steps, batch_size=2, lr=1e-3, rank=1, alpha=1.0, seed=0, schedule="constant")
    return Case(update, [[1, 2, 3, 4]])


def test_layers_below_the_adapted_ones_count_once_and_forward_only(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("tiny", tmp_path))
    width, inner, layers = 64, 128, 2
    one = 4 * width**2 + 3 * width * inner  # weights of a layer
    head = model.config.vocab_size * width
    adapter = 4 * 2 * width + 3 * (width + inner)  # of rank 1, in a layer
    steps, tokens, targets, prompt = 6, 8, 4, 4

    def expected(passing: int, adapters: int) -> float:
        visited = steps * tokens
        return 2.0 * (
            visited * (2 * (layers - passing) * one + 3 * adapters)
            + tokens * passing * one
            + steps * targets * 2 * head
            + prompt * (layers * one + adapters)
        )

    assert useful_flops(model, "all-linear", a_case(steps)) == pytest.approx(expected(0, 2 * adapter))
    assert useful_flops(model, "all-linear@1:", a_case(steps)) == pytest.approx(expected(1, adapter))
    mlp = 3 * (width + inner)
    assert useful_flops(model, "gate_proj,up_proj,down_proj@1:", a_case(steps)) == pytest.approx(expected(1, mlp))
    assert a_case(steps).distinct_tokens == tokens
