"""The demo of a pretrained model: what it sets, and the whole of it on a tiny random one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_summary import full_summary

from selfedit.cli.main import main
from selfedit.config import Settings

TURNS = "{% for turn in messages %}<{{ turn['role'] }}> {{ turn['content'] }}\n{% endfor %}<assistant>"
RUNGS = ["no_edit", "passage_only", "base_edits", "round_1", "in_context"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def instruct_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama with a chat template; its tokens are learned from the passages, so that they are few in each."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from selfedit.tasks.files import read_tasks
    from selfedit.tasks.sources.passages import PASSAGES

    directory = tmp_path_factory.mktemp("tiny") / "tiny-instruct"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([task.text for task in read_tasks(PASSAGES)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TURNS
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture
def asked(stub: Callable[..., None]) -> list[tuple[Settings, Path]]:
    """What the stubbed experiment was asked to run."""
    runs: list[tuple[Settings, Path]] = []

    def run_experiment(settings: Settings, directory: Path, on_event: Any) -> dict[str, Any]:
        runs.append((settings, directory))
        on_event("done", {"summary": full_summary(), "directory": str(directory)})
        return full_summary()

    stub("selfedit.evaluation.experiment", run_experiment=run_experiment)
    return runs


def test_a_pretrained_model_reads_our_passages_in_turns_where_it_knows_turns(
    asked: list[tuple[Settings, Path]], instruct_model: str, tiny_world_model: str
) -> None:
    assert main(["demo", "--model", instruct_model, "--seed", "2"]) == 0
    assert main(["demo", "--model", tiny_world_model, "--rounds", "2"]) == 0
    (chat, directory), (general, _) = asked
    assert directory == Path("runs/demo-tiny-instruct-seed-2")
    assert (chat.model.path, chat.model.templates, chat.seed, chat.rounds) == (instruct_model, "chat", 2, 1)
    assert (general.model.templates, general.rounds) == ("general", 2)
    for settings in (chat, general):
        assert (settings.tasks.source, settings.tasks.evaluation) == ("passages", 8)


def test_without_a_model_the_demo_is_the_embedded_one(asked: list[tuple[Settings, Path]]) -> None:
    assert main(["demo"]) == 0
    assert asked == [(Settings(), Path("runs/demo-seed-0"))]


@pytest.mark.parametrize("name", ["absent/model", "./absent"])
def test_a_model_that_is_not_there_is_a_message(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["demo", "--model", name]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert "Traceback" not in error
    assert not Path("runs").exists()


def test_the_whole_demo_of_a_tiny_model_ends_in_a_ladder_with_log_likelihoods(
    instruct_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfedit.report.charts.svg", lambda chart: "<svg/>")  # their rendering has tests of its own
    assert main(["demo", "--model", instruct_model, "--out", "here"]) == 0
    summary = json.loads(Path("here/summary.json").read_text(encoding="utf-8"))
    rows = {row["rung"]: row for row in summary["ladder"]}
    assert list(rows) == RUNGS
    assert {row["n_tasks"] for row in rows.values()} == {8}
    assert {row["n_probes"] for row in rows.values()} == {48}
    untrained, trained = rows["no_edit"]["logprob"], rows["passage_only"]["logprob"]
    assert untrained < 0
    assert trained != untrained
    assert summary["rounds"][1]["n_edits"] == 12
    out = capsys.readouterr().out
    assert f"passage only: {100 * rows['passage_only']['accuracy']:.1f} %" in out
    assert "Log p" in out
    assert f"{trained:.2f}" in out
    assert "Log p" in Path("here/report.html").read_text(encoding="utf-8")
