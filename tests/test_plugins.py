"""Plug-ins of another package: each is one file, named in a settings file, and used; of a wrong one the package is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfedit import plugins
from selfedit.cli.main import main
from selfedit.config import load_settings, make_settings
from selfedit.errors import PluginError, SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.report.words import rung_label
from selfedit.run import open_run

HERE = Path(__file__).resolve().parent / "plugin_package"
SETTINGS = HERE / "settings.toml"
ADDED = {
    "edits": "sentences",
    "tasks": "riddles",
    "policies": "quoter",
    "rewards": "brevity",
    "metrics": "first_word",
    "algorithms": "newest",
    "guards": "length",
    "rungs": "said_twice",
}


@pytest.fixture(scope="module")
def installed() -> Any:
    """The package as if it was installed: its files and its entry points are on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield


@pytest.fixture(scope="module")
def done(installed: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run of the settings that name them all, on the base that ships with the package."""
    directory = tmp_path_factory.mktemp("plugins") / "run"
    return run_experiment(load_settings(SETTINGS), directory), directory


def test_every_group_has_a_plug_in_of_the_package_in_a_file_of_its_own(installed: None) -> None:
    assert ADDED.keys() == plugins.GROUPS.keys()
    files = {}
    for group, name in ADDED.items():
        assert name in plugins.names(group)
        files[name] = sys.modules[plugins.find(group, name).__module__].__file__
    assert len(set(files.values())) == len(ADDED)
    assert all(Path(file or "").parent == HERE / "selfedit_extra" for file in files.values())


def test_a_run_uses_every_plug_in_that_its_settings_name(done: tuple[dict[str, Any], Path]) -> None:
    summary, directory = done
    first = summary["rounds"][1]
    with open_run(directory, load_settings(SETTINGS)) as run:
        edits = run.done("round-1/propose/0")["edits"]  # type: ignore[index]
        outcomes = run.done("round-1/apply/0")["outcomes"]  # type: ignore[index]
    assert [edit["task_id"] for edit in edits] == [f"riddle-{n}" for n in (1000, 1000, 1001, 1001)]  # tasks
    assert {(edit["kind"], edit["policy_hash"]) for edit in edits} == {("sentences", "quoter")}  # edits and policies
    assert all("ship 100" in edit["text"] for edit in edits)
    assert {outcome["status"] for outcome in outcomes} == {"ok"}
    for outcome in outcomes:  # rewards and metrics
        (answer,) = outcome["answers"]
        assert answer["correct"] == (answer["text"].split()[:1] == ["a"])
        assert outcome["reward"] == pytest.approx(0.5 * (1 - 0.02 * len(answer["text"])) + answer["correct"])
    assert (first["algorithm"]["mark"], first["algorithm"]["rank"]) == (7.0, 2)  # algorithms
    assert first["algorithm"]["learned_from"] == 4
    assert first["verdict"] == "accepted"
    assert all(row["guards"]["length"]["letters"] > 10 for row in summary["rounds"])  # guards
    rungs = {row["rung"]: row for row in summary["ladder"]}  # rungs
    assert list(rungs) == ["no_edit", "base_edits", "said_twice", "round_1"]
    assert (rungs["base_edits"]["steps"], rungs["said_twice"]["steps"]) == (2, 12)
    assert rungs["said_twice"]["n_tasks"] == 2
    assert ("said_twice", "no_edit") in {(row["a"], row["b"]) for row in summary["paired"]}


def test_reports_show_a_rung_by_its_own_label(done: tuple[dict[str, Any], Path]) -> None:
    _, directory = done
    assert rung_label("said_twice") == "passage, said twice"
    assert "passage, said twice" in (directory / "report.html").read_text()


def test_a_run_records_the_plug_ins_own_settings_and_goes_on_with_no_others(
    done: tuple[dict[str, Any], Path],
) -> None:
    summary, directory = done
    settings = summary["settings"]
    assert settings["edits"]["sentences"] == {"steps": 2}
    assert settings["tasks"]["riddles"] == {"subject": "ship"}
    assert settings["reward"]["brevity"] == {"per_letter": 0.02}
    assert settings["algorithm"]["newest"] == {"mark": 7.0}
    assert settings["guards"]["length"] == {"at_most": 500.0}
    assert settings["ladder"]["said_twice"] == {"times": 3}
    resolved = load_settings(directory / "config.toml")
    assert run_experiment(resolved, directory) == summary
    with pytest.raises(Exception, match=r"guards\.length\.at_most"):
        run_experiment(load_settings(SETTINGS, guards={"length": {"at_most": 5.0}}), directory)


def test_a_guard_of_another_package_rolls_a_round_back(installed: None, tmp_path: Path) -> None:
    settings = load_settings(SETTINGS, guards={"length": {"at_most": 5.0}}, ladder={"rungs": ["no_edit"]})
    row = run_experiment(settings, tmp_path / "run")["rounds"][1]
    assert row["verdict"] == "rolled_back"
    assert "letters long, over 5" in row["reasons"][0]


def test_defaults_of_plug_ins_are_recorded_and_wrong_settings_are_named(installed: None) -> None:
    named = {"algorithm": {"name": "newest"}, "tasks": {"source": "riddles"}}
    fields = make_settings(named).fields()
    assert (fields["algorithm"]["newest"], fields["algorithm"]["rank"]) == ({"mark": 1.0}, 2)
    assert fields["tasks"]["riddles"] == {"subject": "box"}
    with pytest.raises(SettingsError, match=r"newest\.mark"):
        make_settings({"algorithm": {"name": "newest", "newest": {"mark": "much"}}})
    with pytest.raises(SettingsError, match=r"there is no 'newer' among the algorithms; take one of .*newest"):
        make_settings({"algorithm": {"name": "newer"}})


def test_plugins_lists_each_with_a_line_and_its_package(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    """As lines in a process of its own, as a user runs it, and as JSON in this one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-m", "selfedit.cli.main", "plugins"]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in ADDED.values():
        (line,) = [line for line in lines if line.split()[0] == name]
        assert line.endswith("(from selfedit-extra 0.3)")
        assert len(line.removesuffix("(from selfedit-extra 0.3)").split()) > 3
    assert main(["plugins", "--json-lines"]) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert {(row["group"], row["name"]) for row in rows if row["package"] == "selfedit-extra 0.3"} == set(ADDED.items())
    assert all(row["about"] and not row["about"].startswith("broken") for row in rows)
    assert {row["group"] for row in rows if row["package"] == "selfedit"} == set(ADDED)


# Wrong plug-ins


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``package("wrong", "algorithms", "name", source)`` is installed, with one entry point and one module."""

    def made(name: str, group: str, plugin: str, source: str, attribute: str = "Plugin") -> None:
        root = tmp_path / name
        info = root / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[selfedit.{group}]\n{plugin} = {name}_module:{attribute}\n")
        (root / f"{name}_module.py").write_text(source)
        monkeypatch.syspath_prepend(root)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)

    return made


WRONG = {
    "raises at import": ("raise RuntimeError('no such card')\n", r"can't be imported \(RuntimeError: no such card\)"),
    "has no such name": ("other = 1\n", r"can't be imported \(AttributeError: "),
    "does not parse": ("def :\n", r"can't be imported \(SyntaxError"),
    "lacks what it needs": (
        "class Plugin:\n    pass\n",
        r"is not one of the algorithms: it has no improve; see docs/plugins\.md",
    ),
    "is no class": ("Plugin = 3\n", "is not one of the algorithms"),
    "has settings that are none": (
        "class Plugin:\n    Settings = dict\n    def improve(self): ...\n",
        "has a Settings that is not a pydantic model",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_plug_in_is_an_error_that_names_its_package(wrong: str, package: Callable[..., None]) -> None:
    source, said = WRONG[wrong]
    package("wrong", "algorithms", "mine", source)
    with pytest.raises(PluginError, match=rf"the plug-in 'mine' \(selfedit\.algorithms\) of the package wrong 1\.0 .*{said}"):
        plugins.find("algorithms", "mine")
    with pytest.raises((PluginError, SettingsError), match=r"the package wrong 1\.0"):
        make_settings({"algorithm": {"name": "mine"}})


def test_a_rung_without_its_own_way_to_climb_is_refused_before_anything_runs(package: Callable[..., None]) -> None:
    source = "from selfedit.evaluation.ladder import Rung\n\n\nclass Plugin(Rung):\n    label = 'mine'\n"
    package("wrong", "rungs", "mine", source)
    with pytest.raises(PluginError, match=r"package wrong 1\.0 is not one of the rungs: it has no climb"):
        plugins.find("rungs", "mine")


def test_a_wrong_plug_in_is_listed_as_broken_and_others_work(
    package: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    package("wrong", "algorithms", "mine", "raise RuntimeError('no such card')\n")
    assert plugins.find("algorithms", "reinforce")
    assert make_settings({}).algorithm.name == "reinforce"
    assert main(["plugins"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "mine"]
    assert "broken: " in line
    assert "wrong 1.0" in line
    assert "no such card" in line


@pytest.mark.parametrize(("taken", "by"), [("reinforce", "selfedit and wrong 1.0"), ("mine", "other 1.0 and wrong 1.0")])
def test_a_name_that_is_taken_is_an_error_that_names_both_packages(taken: str, by: str, package: Callable[..., None]) -> None:
    source = "class Plugin:\n    def improve(self): ...\n"
    package("wrong", "algorithms", taken, source)
    if taken == "mine":
        package("other", "algorithms", taken, source)
    with pytest.raises(PluginError, match=f"the name '{taken}' is taken twice among the algorithms, by {by}; rename"):
        plugins.find("algorithms", taken)
    with pytest.raises((PluginError, SettingsError), match=by):
        make_settings({"algorithm": {"name": taken}})


def test_a_wrong_plug_in_ends_a_command_with_a_sentence(
    package: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package("wrong", "guards", "mine", "raise RuntimeError('no such card')\n")
    (tmp_path / "own.toml").write_text('[guards]\nnames = ["mine"]\n')
    assert main(["run", str(tmp_path / "own.toml"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("selfedit: ")
    assert "the package wrong 1.0 can't be imported (RuntimeError: no such card)" in said
    assert "Traceback" not in said
