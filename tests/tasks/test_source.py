"""Tasks of a file as a source: they are read once, and what becomes of the file later changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from selfedit.config import TaskSettings
from selfedit.tasks.files import as_text, read_tasks
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


@pytest.mark.parametrize("form", ["plain", "marked", "blank lines", "squad"])
def test_every_form_gives_each_task_whole_wherever_it_stands(tmp_path: Path, form: str) -> None:
    path = tmp_path / "tasks"
    rows = [json.dumps(_record(n), ensure_ascii=False) for n in range(20)]
    if form == "squad":
        (tmp_path / "rows").write_text("\n".join(rows), encoding="utf-8")
        path.write_text(as_text(read_tasks(tmp_path / "rows"), "squad"), encoding="utf-8")
    else:
        head = {"marked": "\ufeff", "blank lines": "\n  \n"}.get(form, "")
        path.write_bytes((head + ("\r\n\r\n" if head else "\n").join(rows)).encode())
    everything = {task.id: task for task in read_tasks(path)}
    source = _source(path)
    assert len(everything) == 20
    assert len(set(_all_of(source)) & set(everything)) == 20 - SMALL["evaluation"]  # the other split's are never seen
    assert all(everything[task.id] == task for task in [*source.draw(1), *source.dev(), *source.evaluation()])


def test_a_file_that_changes_later_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_text("\n".join(json.dumps(_record(n)) for n in range(20)))
    source, untouched = _source(path), _source(path)
    path.unlink()
    assert [source.draw(2), source.dev(), source.evaluation()] == [
        untouched.draw(2),
        untouched.dev(),
        untouched.evaluation(),
    ]
    assert source.sha256s() == untouched.sha256s()


def test_passages_of_one_title_stay_together_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    titles = [*"ABCDE" * 4, "", ""]
    path.write_text("\n".join(json.dumps(_record(n) | {"title": title}) for n, title in enumerate(titles)))
    small = {"source": str(path), "evaluation": 4, "dev": 3, "per_round": 22}
    found = {split: File(TaskSettings.model_validate({**small, "split_by": split}), 0) for split in ("passage", "title")}
    sets = {
        split: [{task.title for task in part if task.title} for part in (s.draw(1), s.dev(), s.evaluation())]
        for split, s in found.items()
    }
    assert not any(a & b for a, b in combinations(sets["title"], 2))
    assert any(a & b for a, b in combinations(sets["passage"], 2))
    assert [len({task.id for task in part}) for part in (found["title"].dev(), found["title"].evaluation())] == [3, 4]


def test_squads_validation_set_is_a_source(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("squad/squad_val.json")
    source = File(TaskSettings(source=str(path), evaluation=200, dev=16, per_round=2067 - 416), 0)
    drawn, dev, held = source.draw(1), source.dev(), source.evaluation()
    assert [len(drawn), len(dev), len(held)] == [2067 - 416, 16, 200]
    assert len({task.id for task in [*drawn, *dev, *held]}) == 2067 - 200
    assert all(task.title and task.probes for task in drawn)
