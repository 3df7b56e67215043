"""A run directory: chunks are done once, other settings are refused, one process at a time, nothing half-written."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from selfedit.config import load_settings, make_settings
from selfedit.errors import RunError
from selfedit.run import open_run, replace_directory, write_atomically

SETTINGS = make_settings({"seed": 3})


def test_a_chunk_is_computed_once_and_read_back_equal(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"values": (1, 2.5, "ü"), "none": None}

    with open_run(tmp_path / "r", SETTINGS) as run:
        first = run.once("round-1/propose/0", compute)
    with open_run(tmp_path / "r", SETTINGS) as run:
        again = run.once("round-1/propose/0", compute)
        assert run.done("round-1/propose/8") is None
    assert first == again == {"values": [1, 2.5, "ü"], "none": None}
    assert len(calls) == 1


def test_a_run_keeps_a_name_that_no_other_has(tmp_path):
    names = []
    for directory in ("r", "r", "other"):
        with open_run(tmp_path / directory, SETTINGS) as run:
            names.append(run.id)
    assert names[0] == names[1] != names[2]


def test_a_chunk_that_fails_is_not_committed(tmp_path):
    with open_run(tmp_path / "r", SETTINGS) as run:
        with pytest.raises(ZeroDivisionError):
            run.once("a/0", lambda: {"x": 1 / 0})
        assert run.done("a/0") is None
        with pytest.raises(ValueError, match="JSON"):
            run.once("a/0", lambda: {"x": float("nan")})
        assert run.once("a/0", lambda: {"x": 1}) == {"x": 1}


def test_other_settings_are_refused_and_the_fields_named(tmp_path):
    with open_run(tmp_path / "r", SETTINGS):
        pass
    other = make_settings({"seed": 4, "inner": {"lr": 0.1}})
    with pytest.raises(RunError, match=r"inner\.lr, seed"), open_run(tmp_path / "r", other):
        pass


def test_a_run_whose_targets_were_not_recorded_is_refused_by_their_name(tmp_path):
    with open_run(tmp_path / "r", SETTINGS):
        pass
    file = tmp_path / "r" / "config.toml"
    recorded = f'targets = "{SETTINGS.targets}"'
    assert recorded in file.read_text()
    for other in ("auto", "all-linear"):  # an earlier release wrote "auto", and meant something else by it
        file.write_text(file.read_text().replace(recorded, f'targets = "{other}"'))
        with pytest.raises(RunError, match=r"\(model\.targets\)"), open_run(tmp_path / "r", SETTINGS):
            pass
        file.write_text(file.read_text().replace(f'targets = "{other}"', recorded))


def test_a_setting_that_a_run_of_before_does_not_know_has_its_default(tmp_path):
    with open_run(tmp_path / "r", SETTINGS):
        pass
    file = tmp_path / "r" / "config.toml"
    known = file.read_text()
    file.write_text(known.replace("pad_to = 0\n", ""))
    assert file.read_text() != known
    with open_run(tmp_path / "r", SETTINGS) as run:
        assert run.settings == SETTINGS
    padded = make_settings({"seed": 3, "inner": {"pad_to": 64}})
    with pytest.raises(RunError, match=r"\(inner\.pad_to\)"), open_run(tmp_path / "r", padded):
        pass


def test_the_written_settings_are_a_file_that_selfedit_runs(tmp_path):
    with open_run(tmp_path / "r", SETTINGS):
        pass
    assert load_settings(tmp_path / "r" / "config.toml") == SETTINGS


def test_a_run_resolves_its_settings_once_and_remembers_why(tmp_path):
    def resolve(settings):
        return settings.on_machine(members_at_once=3, dtype="fp32"), "because"

    with open_run(tmp_path / "r", SETTINGS, resolve=resolve) as run:
        assert (run.settings.model.members_at_once, run.why) == (3, "because")
    with open_run(tmp_path / "r", SETTINGS, resolve=None) as run:
        assert (run.settings.model.members_at_once, run.settings.model.dtype, run.why) == (3, "fp32", "because")
    with pytest.raises(RunError, match=r"model\.dtype"), open_run(tmp_path / "r", SETTINGS.on_machine(dtype="bf16")):
        pass


@pytest.mark.parametrize("gib", ["auto", 1.0, 9.0])
def test_a_run_goes_on_whatever_memory_it_is_asked_to_plan_with(gib, tmp_path):
    def resolve(settings):
        return settings.on_machine(memory_gib=1.0, members_at_once=3), ""

    with open_run(tmp_path / "r", SETTINGS, resolve=resolve) as run:
        before = run.settings
    with open_run(tmp_path / "r", SETTINGS.on_machine(memory_gib=gib), resolve=None) as run:
        assert run.settings == before
    other = SETTINGS.on_machine(memory_gib=gib, members_at_once=4)
    with pytest.raises(RunError, match=r"\(model\.members_at_once\)"), open_run(tmp_path / "r", other):
        pass


def test_a_second_process_is_refused_while_the_first_has_it_and_let_in_when_it_died(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from selfedit.config import load_settings, make_settings
        from selfedit.run import open_run
        with open_run(Path({str(tmp_path / "r")!r}), make_settings({{"seed": 3}})):
            print("open", flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(RunError, match="another process"), open_run(tmp_path / "r", SETTINGS):
            pass
        child.kill()
        child.wait()
    with open_run(tmp_path / "r", SETTINGS) as run:
        assert run.once("a/0", lambda: {"x": 1}) == {"x": 1}


def test_wall_clock_is_kept_apart_from_the_data(tmp_path):
    with open_run(tmp_path / "r", SETTINGS) as run:
        run.once("a/0", lambda: {"x": 1})
        assert set(run.seconds()) == {"a/0"}
        assert run.done("a/0") == {"x": 1}


def test_damaged_settings_and_journal_say_what_to_do(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.toml").write_text("rounds = ")
    with pytest.raises(RunError, match="damaged"), open_run(tmp_path / "r", SETTINGS):
        pass
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "journal.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match=r"journal\.db"), open_run(tmp_path / "q", SETTINGS):
        pass


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "policy"
    replace_directory(target, lambda d: (d / "a").write_text("1"))

    def half(directory):
        (directory / "a").write_text("2")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_directory(target, half)
    assert (target / "a").read_text() == "1"
    replace_directory(target, lambda d: (d / "b").write_text("3"))
    assert sorted(os.listdir(target)) == ["b"]


def test_a_directory_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))

    def fill(directory):
        (directory / "part").mkdir()
        (directory / "part" / "a").write_text("1")
        synced.append("filled")

    replace_directory(tmp_path / "policy", fill)
    made = [tmp_path / "policy", tmp_path / "policy" / "part", tmp_path / "policy" / "part" / "a"]
    assert synced[0] == "filled"
    assert set(synced[1:-1]) == {path.stat().st_ino for path in made}
    assert synced[-1] == tmp_path.stat().st_ino  # and then its name


def test_a_text_file_is_written_whole(tmp_path):
    file = tmp_path / "summary.json"
    write_atomically(file, json.dumps({"a": 1}))
    write_atomically(file, json.dumps({"a": 2}))
    assert json.loads(file.read_text()) == {"a": 2}
    assert os.listdir(tmp_path) == ["summary.json"]
