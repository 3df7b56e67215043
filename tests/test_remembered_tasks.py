"""A run goes on with the tasks that it began with, and with no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from commands import Command
from journals import journal_of, summary_of
from selfedit.config import Settings, make_settings
from selfedit.errors import RunError
from selfedit.evaluation.experiment import run_experiment
from selfedit.tasks.files import as_text, read_tasks
from selfedit.tasks.sources import world as world_source
from selfedit.tasks.sources.world import draw_tasks

ROUND = {"rounds": 1, "ladder": {"rungs": ["no_edit"]}}


def written(directory: Path) -> Path:
    path = directory / "tasks.jsonl"
    path.write_text(as_text(draw_tasks("dev", ("e1",), 12, seed=3)), encoding="utf-8")
    return path


@pytest.fixture
def tasks_file(tmp_path: Path) -> Path:
    return written(tmp_path)


def settings_for(fields: dict[str, Any], source: Path | str) -> Settings:
    return make_settings(fields | ROUND | {"tasks": fields["tasks"] | {"source": str(source)}})


def stopped(settings: Settings, directory: Path, at: str = "passage") -> None:
    def stop(kind: str, data: dict[str, Any]) -> None:
        if kind == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(settings, directory, stop)


def edited(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "an answer": lambda rows: rows[4]["probes"][0].update(answer="a windmill"),
    "a further answer": lambda rows: rows[4]["probes"][0].update(also=["a windmill"]),
    "a question": lambda rows: rows[4]["probes"][0].update(question="What now?"),
    "a passage, its id kept": lambda rows: rows[4].update(context="Another passage."),
    "a title": lambda rows: rows[4].update(title="Another title"),
    "a line added": lambda rows: rows.append(rows[0] | {"id": "new", "context": "A new passage."}),
    "a line taken out": lambda rows: rows.pop(4),
    "all lines but two taken out": lambda rows: rows.__delitem__(slice(2, None)),
    "a row of a passage added": lambda rows: rows.append({"context": rows[4]["context"], "question": "What now?", "answer": 1}),
    "an unanswered question answered": lambda rows: rows[4]["probes"].append({"question": "Why?", "answer": "so"}),
    "an edit": lambda rows: rows[4].update(edit="- another"),
    "an id": lambda rows: rows[4].update(id="another"),
    "the order": lambda rows: rows.reverse(),
    "nothing left": lambda rows: rows.clear(),
}


@pytest.fixture(scope="module")
def begun(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, Path]:
    """A run's settings, its directory, in which it was stopped, and its file of tasks."""
    directory = tmp_path_factory.mktemp("begun")
    path = written(directory)
    settings = settings_for(fields, path)
    stopped(settings, directory / "run")
    return settings, directory / "run", path


def refused(change: str, begun: tuple[Settings, Path, Path], directory: Path) -> None:
    """A copy of the stopped run, in ``directory``, does not go on while the file is changed, and is left as it was."""
    settings, run, path = begun
    shutil.copytree(run, directory)
    before, journal = path.read_text(), journal_of(directory)
    edited(path, CHANGES[change])
    try:
        with pytest.raises(RunError, match=r"restore \S*tasks\.jsonl.* as it was .* or choose another --out"):
            run_experiment(settings, directory)
    finally:
        path.write_text(before)
    assert journal_of(directory) == journal
    assert not (directory / "summary.json").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_a_stopped_run_does_not_go_on_with_a_changed_file(
    change: str, begun: tuple[Settings, Path, Path], tmp_path: Path
) -> None:
    refused(change, begun, tmp_path / "run")


def test_a_run_that_was_refused_goes_on_once_its_file_is_restored(begun: tuple[Settings, Path, Path], tmp_path: Path) -> None:
    settings = begun[0]
    refused("an answer", begun, tmp_path / "run")
    run_experiment(settings, tmp_path / "run")
    run_experiment(settings, tmp_path / "whole")
    assert summary_of(tmp_path / "run") == summary_of(tmp_path / "whole")


def test_a_finished_run_is_not_shown_for_other_tasks(fields: dict[str, Any], tasks_file: Path, tmp_path: Path) -> None:
    settings = settings_for(fields, tasks_file)
    summary = run_experiment(settings, tmp_path / "run")
    edited(tasks_file, CHANGES["an answer"])
    with pytest.raises(RunError, match=r"tasks\.jsonl \(changed\)"):
        run_experiment(settings, tmp_path / "run")
    tasks_file.unlink()  # its numbers may be looked up where the file is kept elsewhere
    assert run_experiment(settings, tmp_path / "run") == summary


def test_an_edit_of_the_file_while_the_run_goes_changes_nothing(fields: dict[str, Any], tasks_file: Path, tmp_path: Path) -> None:
    settings = settings_for(fields, tasks_file)
    run_experiment(settings, tmp_path / "whole")

    def edit(kind: str, data: dict[str, Any]) -> None:
        if kind == "passage":
            tasks_file.write_text(tasks_file.read_text().replace(" the ", " one "))

    run_experiment(settings, tmp_path / "run", edit)
    assert summary_of(tmp_path / "run") == summary_of(tmp_path / "whole")


@pytest.mark.parametrize("form", ["squad", "flat"])
def test_other_forms_of_files_are_remembered_too(form: str, fields: dict[str, Any], tasks_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"

    def write(rows: list[dict[str, Any]]) -> None:
        if form == "squad":
            edited(tasks_file, lambda old: old.__setitem__(slice(None), rows))
            path.write_text(as_text(read_tasks(tasks_file), "squad"), encoding="utf-8")
        else:
            path.write_text(json.dumps(rows))

    rows = [json.loads(line) for line in tasks_file.read_text().splitlines()]
    write(rows)
    settings = settings_for(fields, path)
    stopped(settings, tmp_path / "run")
    CHANGES["an answer"](rows)
    write(rows)
    with pytest.raises(RunError, match=r"tasks\.json \(changed\)"):
        run_experiment(settings, tmp_path / "run")


def test_what_is_left_out_of_a_file_is_said_when_a_run_begins(fields: dict[str, Any], tasks_file: Path, tmp_path: Path) -> None:
    edited(tasks_file, lambda rows: rows[4]["probes"].append({"question": "Why?", "answers": []}))
    told: list[str] = []

    def listen(kind: str, data: dict[str, Any]) -> None:
        if kind == "warning":
            told.append(data["text"])
        if kind == "passage":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(settings_for(fields, tasks_file), tmp_path / "run", listen)
    assert "1 question(s) without an answer" in told[0]
    assert f"(the first: {tasks_file}, line 5)" in told[0]


def test_of_a_folder_the_files_are_named(fields: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.md").write_text(f"Note {n} says that the mill of Town {n} is old.")
    settings = settings_for(fields, folder)
    stopped(settings, tmp_path / "run", at="stage")  # the base is about to write questions
    (folder / "1.md").write_text("Another note.")
    (folder / "2.md").rename(folder / "99.md")
    with pytest.raises(RunError, match=r"1\.md \(changed\), \S*2\.md \(missing\), \S*99\.md \(new\) as it was"):
        run_experiment(settings, tmp_path / "run")
    for path in folder.iterdir():
        path.write_text("")
    with pytest.raises(RunError, match=r"restore .*notes as it was .*text"):
        run_experiment(settings, tmp_path / "run")


def test_a_world_that_draws_other_tasks_is_refused(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(fields | ROUND)
    stopped(settings, tmp_path / "run")
    monkeypatch.setattr(world_source, "draw_tasks", lambda *how, **more: draw_tasks(*how, **more)[::-1])
    with pytest.raises(RunError, match="choose another --out: the source 'world' draws other tasks than"):
        run_experiment(settings, tmp_path / "run")


def test_a_second_process_is_refused_with_a_sentence_that_says_what_to_do(
    fields: dict[str, Any], tasks_file: Path, tmp_path: Path
) -> None:
    settings = settings_for(fields, tasks_file)
    (tmp_path / "own.toml").write_text(tomli_w.dumps(settings.fields()))

    def run() -> tuple[int, str]:
        with Command(["run", "own.toml", "--out", "run", "--json-lines"], tmp_path) as child:
            return child.wait(100), child.errors

    stopped(settings, tmp_path / "run", at="round")
    before = tasks_file.read_text()
    edited(tasks_file, CHANGES["an answer"])
    code, errors = run()
    assert code == 2
    assert errors.startswith(f"selfedit: restore {tasks_file} (changed) as it was when the run in run began")
    assert "Traceback" not in errors
    tasks_file.write_text(before)
    assert run()[0] == 0
    edited(tasks_file, CHANGES["a line taken out"])
    assert run()[0] == 2
