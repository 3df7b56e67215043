"""A run goes on with the tasks that it began with, and with no others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from journals import summary_of
from selfedit.config import Settings, make_settings
from selfedit.errors import RunError, TaskFileError
from selfedit.evaluation.experiment import run_experiment
from selfedit.tasks.files import read_tasks, write_tasks
from selfedit.tasks.sources import world as world_source
from selfedit.tasks.sources.world import draw_tasks

ROUND = {"rounds": 1, "ladder": {"rungs": ["no_edit"]}}


@pytest.fixture
def tasks_file(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    write_tasks(draw_tasks("dev", ("e1",), 12, seed=3), path, "jsonl")
    return path


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
    "the order": lambda rows: rows.reverse(),
    "nothing left": lambda rows: rows.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_stopped_run_does_not_go_on_with_a_changed_file(
    change: str, fields: dict[str, Any], tasks_file: Path, tmp_path: Path
) -> None:
    settings, before = settings_for(fields, tasks_file), tasks_file.read_text()
    stopped(settings, tmp_path / "run")
    edited(tasks_file, CHANGES[change])
    with pytest.raises(RunError, match=r"restore \S*tasks\.jsonl.* as it was .* or choose another --out"):
        run_experiment(settings, tmp_path / "run")
    tasks_file.write_text(before)
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


def test_an_edit_of_the_file_while_the_run_goes_is_noticed_at_the_next_draw(
    fields: dict[str, Any], tasks_file: Path, tmp_path: Path
) -> None:
    settings = settings_for(fields, tasks_file)

    def edit(kind: str, data: dict[str, Any]) -> None:
        if kind == "passage":  # the same length, so that every line stays where it was
            tasks_file.write_text(tasks_file.read_text().replace(" the ", " one "))

    with pytest.raises(TaskFileError, match=r"the task 'dev-3-\d+' is not what it was; put the file back"):
        run_experiment(settings, tmp_path / "run", edit)


@pytest.mark.parametrize("form", ["squad", "flat"])
def test_other_forms_of_files_are_remembered_too(
    form: str, fields: dict[str, Any], tasks_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tasks.json"

    def write(rows: list[dict[str, Any]]) -> None:
        if form == "squad":
            edited(tasks_file, lambda old: old.__setitem__(slice(None), rows))
            write_tasks(read_tasks(tasks_file), path, "squad")
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
        path.write_text("Another note.")
    with pytest.raises(RunError, match=r"restore .*notes as it was .* the passage that begins here is there already"):
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
    command = [sys.executable, "-m", "selfedit.cli.main", "run", "own.toml", "--out", "run", "--json-lines"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    stopped(settings, tmp_path / "run", at="round")
    before = tasks_file.read_text()
    edited(tasks_file, CHANGES["an answer"])
    refused = run()
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"selfedit: restore {tasks_file} (changed) as it was when the run in run began")
    assert "Traceback" not in refused.stderr
    tasks_file.write_text(before)
    assert run().returncode == 0
    edited(tasks_file, CHANGES["a line taken out"])
    assert run().returncode == 2
