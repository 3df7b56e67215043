"""`selfedit model check`: what it finds on a model that works, and on models that don't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from selfedit.cli.main import main
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.model_check import check_model

LINES = ["model", "targets", "dtype", "templates", "stop tokens", "generate", "batched", "adapters", "speed", "memory"]


def test_a_model_that_works_gets_ten_lines(tiny_qwen2: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", tiny_qwen2, "--prompts", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = {row["name"]: row for row in said["findings"]}
    assert [name for name in found if name != "note"] == LINES
    assert said["ok"]
    assert found["model"]["architecture"] == "qwen2"
    assert found["generate"]["equal"] == 3
    assert found["templates"]["chat"] is False
    assert found["stop tokens"]["text"] == "</s>"
    assert found["adapters"]["peft"]
    assert 0 <= found["adapters"]["distance"] < 1e-2
    assert 0 < found["adapters"]["distance_of_attentions"] < 1e-2
    for name, number in (("batched", "fit"), ("speed", "decode"), ("speed", "score")):
        assert found[name][f"{number}_tokens_per_second"] > 0
    assert found["batched"]["seconds_per_edit"] > 0


def test_the_dtype_is_the_one_that_was_asked_for(tiny_qwen2: str, tell: Any) -> None:
    found = {f.name: f for f in check_model(tiny_qwen2, prompts=2, tell=tell, dtype="bf16")}
    assert found["dtype"].numbers == {"dtype": "bfloat16"}
    assert all(f.ok for f in found.values())


def test_answers_that_end_early_and_prompts_of_any_length_are_compared(tiny_qwen2: str, tell: Any) -> None:
    """Prompts of one length go through transformers' generate together."""
    (found,) = (f for f in check_model(tiny_qwen2, prompts=70, tell=tell) if f.name == "generate")
    assert found.numbers["equal"] == 70


def test_a_chat_template_is_described(tiny_qwen2: str, tmp_path: Path, tell: Any) -> None:
    shutil.copytree(tiny_qwen2, tmp_path / "chat")
    template = (
        "{% if enable_thinking %}t{% endif %}system: {{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    (tmp_path / "chat" / "chat_template.jinja").write_text(template)
    found = {f.name: f for f in check_model(str(tmp_path / "chat"), prompts=1, tell=tell)}
    for said in ("its own system message", "enable_thinking", "today's date"):
        assert said in found["templates"].text


def test_an_engine_that_answers_otherwise_is_found_out(
    tiny_qwen2: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and the line says what is wrong; the other lines are there all the same."""
    usual = TorchEngine.load

    def another(*args: Any, **how: Any) -> TorchEngine:
        engine = usual(*args, **how)
        with torch.no_grad():
            engine.model.get_input_embeddings().weight.add_(torch.randn(258, 40))
        return engine

    monkeypatch.setattr(TorchEngine, "load", another)
    assert main(["model", "check", tiny_qwen2, "--prompts", "2"]) == 1
    lines = {line[3:].split()[0]: line[:3].strip() for line in capsys.readouterr().out.splitlines()}
    assert lines["generate"] == lines["adapters"] == "NO"
    assert lines["model"] == lines["batched"] == "ok"


def test_a_model_that_cant_be_loaded_is_a_finding_with_its_reason(
    tiny_qwen2: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_qwen2, tmp_path / "part")
    (tmp_path / "part" / "model.safetensors").unlink()
    assert main(["model", "check", str(tmp_path / "part")]) == 1
    assert "no weights" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "check", "smollm2-135m-instruct"]) == 2
    assert "selfedit model get smollm2-135m-instruct" in capsys.readouterr().err
