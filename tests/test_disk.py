"""A disk that is full, has no locks or no shared memory is called that, and costs nothing of what was committed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import selfedit
from selfedit.cli.main import main
from selfedit.config import make_settings
from selfedit.disk import disk_error, file_system
from selfedit.engine.adapters import lora
from selfedit.engine.adapters.lora import LoraAdapter
from selfedit.engine.planning.capacity import total_ram
from selfedit.errors import DiskError, SettingsError
from selfedit.run import open_run, replace_directory

SETTINGS = make_settings({"seed": 3})
FULL = "I/O error: No space left on device (os error 28)"


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """``small_files(n)``: from now on this process writes no file of more than n bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_chunk_that_finds_no_room_is_redone_when_there_is_some(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    with open_run(tmp_path / "r", SETTINGS) as run:
        run.once("a/0", lambda: {"x": 1})
        small_files((tmp_path / "r" / "journal.db-wal").stat().st_size)
        with pytest.raises(DiskError, match="no file may become that large here") as caught:
            run.once("a/1", lambda: {"x": "y" * 100_000})
        assert "move it away" not in str(caught.value)
        assert "what was committed is kept" in str(caught.value)
        assert run.done("a/0") == {"x": 1}
        small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        assert run.done("a/1") is None
        assert run.once("a/1", lambda: {"x": 2}) == {"x": 2}


def test_sqlites_words_for_a_full_disk_are_not_taken_for_damage(tmp_path: Path) -> None:
    assert "the disk is full; make room there" in str(disk_error(tmp_path, sqlite3.OperationalError("database or disk is full")))
    locked = disk_error(tmp_path, sqlite3.OperationalError("locking protocol"), "choose another --out")
    assert file_system(tmp_path) in str(locked)
    for word in ("the disk is full", "choose another"):
        assert (word in str(locked)) is (word == "choose another")


def test_a_disk_error_of_sqlite_on_a_full_disk_is_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    said = str(disk_error(tmp_path, sqlite3.OperationalError("disk I/O error")))
    assert "the disk is full" in said


@pytest.mark.parametrize(("number", "told"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "your quota on this disk")])
def test_whatever_is_written_in_a_run_a_full_disk_is_called_that(number: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=f"{told}.*make room there"), open_run(tmp_path / "r", SETTINGS):
        raise OSError(number, os.strerror(number))


def test_an_adapter_that_finds_no_room_is_the_systems_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(*_: object, **__: object) -> None:
        raise SafetensorError(f"Error while serializing: {FULL}")

    monkeypatch.setattr(lora, "save_file", save_file)
    adapter = LoraAdapter({"q": (torch.zeros(1, 2), torch.zeros(2, 1))}, 1, 1.0)
    with pytest.raises(DiskError, match="the disk is full"), open_run(tmp_path / "r", SETTINGS) as run:
        replace_directory(run.directory / "policy", adapter.save)
    assert not list((tmp_path / "r").glob("*policy*"))
    with open_run(tmp_path / "r", SETTINGS):
        pass


def test_output_that_finds_no_room_ends_the_command_with_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from selfedit.cli.main import main; raise SystemExit(main(['world', 'sample', '--n', '300', '--form', 'jsonl']))"
    with Path("/dev/full").open("w") as nowhere:
        done = subprocess.run([sys.executable, "-c", code], stdout=nowhere, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "standard output: can't be written: the disk is full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(DiskError, match="has no file locks") as caught, open_run(tmp_path / "r", SETTINGS):
        pass
    assert file_system(tmp_path) in str(caught.value)
    assert "another process" not in str(caught.value)


@pytest.mark.parametrize("before", [False, True])
def test_where_a_log_cannot_be_shared_the_journal_works_without_one(before: bool, tmp_path: Path) -> None:
    if before:  # on another disk
        with open_run(tmp_path / "r", SETTINGS) as run:
            run.once("a/0", lambda: {"x": 0})
    journal = tmp_path / "r" / "journal.db"
    journal.parent.mkdir(exist_ok=True)
    # As on a network disk, SQLite gets no memory to share.
    journal.with_name("journal.db-shm").symlink_to(tmp_path / "nowhere" / "shm")
    for n in (0, 1, 2):
        with open_run(tmp_path / "r", SETTINGS) as run:
            assert run.once(f"a/{n}", lambda n=n: {"x": n}) == {"x": n}
            reader = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)  # others may still read
            assert reader.execute("select count(*) from chunks").fetchone() == (n + 1,)
            assert reader.execute("pragma journal_mode").fetchone() == ("delete",)
            reader.close()


def test_the_journals_views_need_no_new_sqlite(tmp_path: Path) -> None:
    with open_run(tmp_path / "r", SETTINGS) as run:
        run.once("round-2/propose/0", lambda: {"edits": [{"task_id": "t", "index": 3, "text": "x"}]})
        answers = [{"question": "q?", "correct": True, "text": "a"}]
        run.once("round-2/try/0", lambda: {"outcomes": [{"edit_id": "t#3", "reward": 0.5, "answers": answers}]})
    with sqlite3.connect(tmp_path / "r" / "journal.db") as db:
        assert not [sql for (sql,) in db.execute("select sql from sqlite_master where sql is not null") if "->" in sql]
        assert db.execute('select round, task_id, "index", text, form from edits').fetchall() == [(2, "t", 3, "x", None)]
        assert db.execute("select stage, edit_id, reward, reason from outcomes").fetchall() == [("try", "t#3", 0.5, None)]
        assert db.execute("select edit_id, question, correct from answers").fetchall() == [("t#3", "q?", 1)]
    db.close()


def test_a_system_without_file_locks_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fcntl", "resource"):  # Windows has neither
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    assert "a run needs file locks (fcntl), which this system does not have; on Windows use WSL" in refused(capsys, "demo")
    assert total_ram(tmp_path) > 0
    early = re.compile(r"^(?:import|from) (?:fcntl|resource)\b", re.MULTILINE)
    assert [path for path in Path(selfedit.__path__[0]).rglob("*.py") if early.search(path.read_text(encoding="utf-8"))] == []


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err


@pytest.fixture
def never_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("selfedit.evaluation.experiment.run_experiment", lambda *_: pytest.fail("it began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("rounds = 0\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()


@pytest.mark.usefixtures("never_runs")
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("evaluate my.toml --json no/such/x.json", "--json: no/such/x.json: can't be written: there is no folder no/such"),
        ("evaluate my.toml --json folder", "it is a folder"),
        ("evaluate my.toml --json file/x.json", "file is a file"),
        ("evaluate my.toml --out file", "is a file; choose another --out"),
        ("run my.toml --out file/run", "is a file; choose another --out"),
        ("run my.toml --seed 1 2 --out file", "is a file; choose another --out"),
        ("demo --out file", "is a file; choose another --out"),
        ("report folder --json no/such/x.json", "--json: no/such/x.json"),
        ("report folder --chart no/such/x.svg", "--chart: no/such/x.svg"),
        ("grader report --data none.jsonl --json no/such/x.json", "--json: no/such/x.json"),
        ("import-round none.json --select no/such/x.jsonl", "--select: no/such/x.jsonl"),
        ("world sample --out no/such/x.jsonl", "--out: no/such/x.jsonl"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_done(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, *command.split())


@pytest.mark.usefixtures("never_runs")
def test_a_folder_that_may_not_be_written_is_said_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert "you may not write in" in refused(capsys, "evaluate", "my.toml", "--json", "folder/x.json")
    assert "you may not write in" in refused(capsys, "run", "my.toml", "--out", "folder/run")


def test_the_home_directory_stands_for_a_tilde_in_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["world", "sample", "--n", "1", "--out=~/t.jsonl"]) == 0
    assert (tmp_path / "t.jsonl").exists()
    assert "t.jsonl can't be read" not in refused(capsys, "run", "~/none.toml")
    assert not (tmp_path / "~").exists()


def test_the_home_directory_stands_for_a_tilde_in_every_setting_that_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fields: dict[str, Any] = {
        "rounds": 0,
        "model": {"path": "~/m"},
        "learner": {"path": "~/l"},
        "tasks": {"source": "~/t.jsonl"},
        "reward": {"metric": "judge", "validation_text": "~/v", "judge": {"model": "m", "cache": "~/j.db"}},
        "protocol": {"policy": "~"},
    }
    made = make_settings(fields)
    paths = (made.model.path, made.of_learner().model.path, made.tasks.source, made.reward.validation_text)
    assert paths == tuple(f"{tmp_path}/{name}" for name in ("m", "l", "t.jsonl", "v"))
    assert made.fields()["reward"]["judge"]["cache"] == f"{tmp_path}/j.db"
    assert made.protocol.policy == str(tmp_path)
    with pytest.raises(SettingsError, match="no home directory here; write the path in full"):
        make_settings({"model": {"path": "~nobody-of-that-name/m"}})
