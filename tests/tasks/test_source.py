"""Tasks of a file as a source: large files are not kept in memory nor read again, and changed ones are noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from selfedit.config import TaskSettings
from selfedit.errors import TaskFileError
from selfedit.tasks.files import read_tasks, write_tasks
from selfedit.tasks.sources import file as source_module
from selfedit.tasks.sources.file import File

SMALL = {"evaluation": 2, "dev": 2, "per_round": 3}


def _record(n: int, words: int = 5) -> dict[str, object]:
    qa = {"question": f"What is {n}?", "answer": str(n)}
    return {"id": f"task-{n}", "context": f"é {n} " + "word " * words, "probes": [qa]}


def _source(path: Path) -> File:
    return File(TaskSettings.model_validate({"source": str(path), **SMALL}), 0)


def _all_of(source: File) -> list[str]:
    drawn = [task.id for round in range(1, 20) for task in source.draw(round)]
    return sorted({*drawn, *(task.id for task in [*source.dev(), *source.evaluation()])})


# Reads a file of 100 000 tasks in a process of its own, and says what that took: MiB, seconds of CPU.
MEASURED = """
import sys, time
from selfedit.config import TaskSettings
from selfedit.tasks.sources.file import File
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
settings, began = TaskSettings(source=sys.argv[1]), peak()
source = File(settings, 0)
read, start = time.process_time(), time.process_time()
tasks = [task for round in range(1, 21) for task in source.draw(round)]
print(peak() - began, read, time.process_time() - start, len({task.id for task in tasks}))
"""


def test_of_a_hundred_thousand_tasks_a_draw_reads_its_own(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(_record(n, 60), ensure_ascii=False) + "\n" for n in range(100_000))
    said = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    ).stdout
    mebibytes, all_seconds, seconds_of_20_draws, n_tasks = map(float, said.split())
    assert n_tasks == 20 * 12
    assert path.stat().st_size > 35 * 2**20
    assert mebibytes < 70  # ids and places; the tasks alone are several times as large as the file
    assert seconds_of_20_draws < all_seconds / 4  # each draw would take as long as all of the file


@pytest.mark.parametrize("form", ["plain", "marked", "blank lines", "squad"])
def test_every_form_gives_each_task_whole_wherever_it_stands(tmp_path: Path, form: str) -> None:
    path = tmp_path / "tasks"
    rows = [json.dumps(_record(n), ensure_ascii=False) for n in range(20)]
    if form == "squad":
        (tmp_path / "rows").write_text("\n".join(rows), encoding="utf-8")
        write_tasks(read_tasks(tmp_path / "rows"), path, "squad")
    else:
        head = {"marked": "\ufeff", "blank lines": "\n  \n"}.get(form, "")
        path.write_bytes((head + ("\r\n\r\n" if head else "\n").join(rows)).encode())
    everything = {task.id: task for task in read_tasks(path)}
    source = _source(path)
    assert len(everything) == 20
    assert len(set(_all_of(source)) & set(everything)) == 20 - SMALL["evaluation"]  # the other split's are never seen
    assert all(everything[task.id] == task for task in [*source.draw(1), *source.dev(), *source.evaluation()])


@pytest.mark.parametrize("form", ["jsonl", "squad"])
@pytest.mark.parametrize("now", ["others", "shifted", "nothing"])
def test_a_file_that_changed_since_is_noticed(tmp_path: Path, form: str, now: str) -> None:
    path, old, new = tmp_path / "tasks", tmp_path / "old", tmp_path / "new"
    old.write_text("\n".join(json.dumps(_record(n)) for n in range(20)))
    new.write_text("\n".join(json.dumps(_record(n + 100)) for n in range(20)))
    write_tasks(read_tasks(old), path, form)  # type: ignore[arg-type]
    source = _source(path)
    if now == "others":
        write_tasks(read_tasks(new), path, form)  # type: ignore[arg-type]
    elif now == "nothing":
        path.write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes()[7:])
    problem = "is not there any more; put the file back" if form == "jsonl" or now == "others" else "tasks"
    with pytest.raises(TaskFileError, match=problem):
        source.draw(1)


def test_a_draw_from_one_json_document_parses_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, path = tmp_path / "rows", tmp_path / "tasks.json"
    rows.write_text("\n".join(json.dumps(_record(n)) for n in range(20)))
    write_tasks(read_tasks(rows), path, "squad")
    source, readings = _source(path), []
    monkeypatch.setattr(source_module, "read_tasks", lambda path: readings.append(path) or read_tasks(path))
    assert len(source.draw(1)) == 3
    assert len(readings) == 1


def test_squads_validation_set_is_a_source(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("squad/squad_val.json")
    source = File(TaskSettings(source=str(path), evaluation=200, dev=16, per_round=2067 - 416), 0)
    drawn, dev, held = source.draw(1), source.dev(), source.evaluation()
    assert [len(drawn), len(dev), len(held)] == [2067 - 416, 16, 200]
    assert len({task.id for task in [*drawn, *dev, *held]}) == 2067 - 200
    assert all(task.title and task.probes for task in drawn)
