"""Fixtures that every room's tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("squad/squad_val.json")`` is that file's path; the test is skipped where the file is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("SELFEDIT_DATA") or beside)

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            # Other people's data: the project reads it and may not pass it on; without it these tests can't run.
            pytest.skip(f"{path} is absent: set SELFEDIT_DATA to the folder that holds {name}, or put it in {beside}")
        return path

    return find


@pytest.fixture(autouse=True)
def _collect_a_tests_own_garbage() -> Iterator[None]:
    """Collections, which the Trainer asks for after every training, look at what the test has made and at nothing older."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _charts_without_a_renderer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's report is written as always, but its charts are not rendered (a second or more per report).

    They are rendered in the tests of the report and the command line, in runs that are started as a process, and in runs
    that are fixtures of a module or a session.
    """
    if request.path.parent.name not in ("report", "cli"):
        monkeypatch.setattr("selfedit.report.charts.svg", lambda chart: f"<svg><!-- {type(chart).__name__} --></svg>")


@pytest.fixture(scope="session")
def tiny_world_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama with the world's tokenizer, saved in the HF format."""
    import torch
    from transformers import AutoTokenizer

    from selfedit.evaluation.machine import EMBEDDED
    from tools.base.train import Recipe, new_model

    directory = tmp_path_factory.mktemp("tiny") / "model"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)  # building it anew would take seconds
    new_model(Recipe(d=32, layers=2, heads=4, d_ff=48), tokenizer).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Qwen2 with a byte-level tokenizer and a window of 700 tokens, shorter than some passages."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    directory = tmp_path_factory.mktemp("qwen") / "model"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(["<pad>", "</s>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=258,
        hidden_size=40,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=700,
        eos_token_id=1,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(directory)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>").save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def fields(tiny_world_model: str) -> dict[str, Any]:
    """Settings of a run of seconds, on that model."""
    # Named, as what "auto" comes to depends on the machine and, for the dtype, on who else is using the processor.
    named = {"members_at_once": 4, "dtype": "fp32", "memory_gib": 1.0}
    return {
        "rounds": 1,
        "model": {"path": tiny_world_model, "templates": "world", **named},
        "tasks": {"per_round": 2, "dev": 2, "evaluation": 3, "probes_per_kind": 1},
        "edits": {"per_task": 2, "max_new_tokens": 8},
        "reward": {"max_answer_tokens": 3},
        "inner": {"steps": 2, "batch_size": 4, "rank": 4, "alpha": 8.0},
        # A random model's answers gain nothing, so every edit is kept: the M-step must have something to learn from.
        "algorithm": {"epochs": 1, "rank": 4, "alpha": 8.0, "rest_em": {"positive_only": False}},
        "guards": {"max_norm_ratio": 100.0, "max_kl": 100.0},
        "ladder": {"oracle_tasks": 2, "middle_tasks": 2, "passage_lr_factors": [1.0, 2.0]},
    }
