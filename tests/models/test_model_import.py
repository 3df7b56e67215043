"""`selfedit model import`: directories and hub ids under a name. (GGUF files: `test_gguf_import`.)"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from selfedit.cli.main import main
from selfedit.errors import ModelError, SettingsError
from selfedit.evaluation.machine import model_path
from selfedit.models import shelf
from selfedit.models.bring import bring


def test_a_directory_stays_where_it_is_and_is_used_by_its_name(
    tiny_qwen2: str, tell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "import", tiny_qwen2, "--name", "mine"]) == 0
    assert 'model.path = "mine"' in capsys.readouterr().out
    assert model_path("mine") == tiny_qwen2
    assert main(["model", "list"]) == 0
    assert f"mine (there)\n  from {tiny_qwen2}" in capsys.readouterr().out


def test_a_directory_that_went_away_is_told(tiny_qwen2: str, tmp_path: Path, tell: Any) -> None:
    shutil.copytree(tiny_qwen2, tmp_path / "moved")
    bring(str(tmp_path / "moved"), None, tell)
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"the model moved is incomplete: .*moved is not there any more"):
        model_path("moved")


@pytest.mark.parametrize(
    ("remove", "said"), [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "tokenizer")]
)
def test_an_incomplete_directory_is_refused(tiny_qwen2: str, tmp_path: Path, tell: Any, remove: str, said: str) -> None:
    shutil.copytree(tiny_qwen2, tmp_path / "part")
    (tmp_path / "part" / remove).unlink()
    with pytest.raises(ModelError, match=said):
        bring(str(tmp_path / "part"), None, tell)
    assert not shelf.entries()


def test_a_folder_of_gguf_files_says_to_name_one(tmp_path: Path, tell: Any) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").touch()
    with pytest.raises(ModelError, match=r"name one of them, such as .*a.gguf"):
        bring(str(tmp_path / "models"), None, tell)


@pytest.mark.parametrize(
    ("name", "said"),
    [("../up", "no name"), ("Big", "no name"), ("embedded", "taken"), ("gemma-3-270m", "taken"), ("", "no name")],
)
def test_names_that_cant_be_or_are_taken_are_refused(tiny_qwen2: str, tell: Any, name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        bring(tiny_qwen2, name, tell)


def test_another_models_name_is_not_taken_over(tiny_qwen2: str, tiny_world_model: str, tell: Any) -> None:
    bring(tiny_qwen2, "mine", tell)
    with pytest.raises(SettingsError, match="the name mine is another model's"):
        bring(tiny_world_model, "mine", tell)
    assert bring(tiny_qwen2, "mine", tell).path == Path(tiny_qwen2)


@pytest.mark.parametrize("source", ["missing.gguf", "./missing", "~/missing", "a b/c", "a/b/c"])
def test_what_is_neither_a_file_nor_a_hub_id_is_told(source: str, tell: Any) -> None:
    with pytest.raises(ModelError, match="no such file or directory"):
        bring(source, None, tell)


def test_a_hub_id_is_fetched_with_the_files_that_are_needed(tiny_qwen2: str, tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot(hub_id: str, **how: Any) -> str:
        asked.update(how, hub_id=hub_id)
        return tiny_qwen2

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert bring("org/Some-Model", None, tell).path == Path(tiny_qwen2)
    assert asked["hub_id"] == "org/Some-Model"
    assert model_path("some-model") == tiny_qwen2
    from huggingface_hub.utils import filter_repo_objects

    files = ["config.json", "model.safetensors", "pytorch_model.bin", "original/consolidated.safetensors", "onnx/model.onnx"]
    files += ["consolidated.safetensors", "tokenizer.model", "LICENSE", "model.gguf", "chat_template.jinja"]
    wanted = filter_repo_objects(files, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"])
    assert list(wanted) == ["config.json", "model.safetensors", "tokenizer.model", "LICENSE", "chat_template.jinja"]


def test_a_hub_that_cant_be_reached_is_one_clear_error(tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_how: object) -> str:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ModelError, match=r"org/name: can't be fetched from the hub .*connect to the network") as error:
        bring("org/name", None, tell)
    assert "selfedit model list" in str(error.value)
    assert not shelf.entries()
