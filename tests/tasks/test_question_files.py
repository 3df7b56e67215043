"""Question files as people have them: rows of one passage are one task, what can't be asked is counted, formats are named."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from selfedit.config import TaskSettings, make_settings
from selfedit.errors import SettingsError, TaskFileError
from selfedit.evaluation.planning import plan
from selfedit.tasks.files import read_file
from selfedit.tasks.gathering import TaskFile
from selfedit.tasks.sources.file import File


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(tmp_path: Path, content: Any) -> TaskFile:
    path = tmp_path / "questions"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_file(path)


def passage(n: int) -> str:
    return f"The town number {n} has {n + 3} bridges and a mill."


def hub_row(n: int, q: int, answers: list[str]) -> dict[str, Any]:
    """A row as the data set "squad" on the hub has it: its id is the question's."""
    given = {"text": answers, "answer_start": [0] * len(answers)}
    return {"id": f"{n}-{q}", "title": f"Town {n}", "context": passage(n), "question": f"Question {q} of {n}?", "answers": given}


HUB = [hub_row(n, q, [str(n + 3), "some"]) for q in range(2) for n in range(3)]  # rows of a passage stand apart


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    made = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), made)
    return made.getvalue()


@pytest.mark.parametrize("form", ["lines", "list", "data", "parquet", "gzip", "bzip2", "xz", "parquet in gzip"])
def test_rows_of_one_question_become_one_task_per_passage(tmp_path: Path, form: str) -> None:
    made: dict[str, Any] = {
        "lines": lambda: jsonl(HUB),
        "list": lambda: HUB,
        "data": lambda: {"version": "1", "data": HUB},
        "parquet": lambda: as_parquet(HUB),
        "gzip": lambda: gzip.compress(jsonl(HUB)),
        "bzip2": lambda: bz2.compress(json.dumps(HUB, indent=1).encode()),
        "xz": lambda: lzma.compress(jsonl(HUB)),
        "parquet in gzip": lambda: gzip.compress(as_parquet(HUB)),
    }
    found = read(tmp_path, made[form]())
    assert [task.text for task in found.tasks] == [passage(n) for n in range(3)]
    assert [probe.question for probe in found.tasks[1].probes] == ["Question 0 of 1?", "Question 1 of 1?"]
    assert found.tasks[1].probes[0].golds == ("4", "some")
    assert found.tasks[1].id.startswith("town-1-")  # not the id of one of its questions
    assert found.notes == []


def question(text: str, answers: list[str], **more: Any) -> dict[str, Any]:
    return {"question": text, "id": text, "answers": [{"text": a, "answer_start": 0} for a in answers], **more}


def test_unanswerable_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    qas = [
        question("How many?", ["3"], is_impossible=False),
        question("Which colour?", [], is_impossible=True, plausible_answers=[{"text": "red"}]),
        question("Which river?", ["none"], is_impossible=True),
    ]
    only = [question("Why?", [], is_impossible=True)]
    squad = {"data": [{"title": "T", "paragraphs": [{"context": "3 bridges.", "qas": qas}, {"context": "A mill.", "qas": only}]}]}
    for content, unanswered in ((squad, 3), ([*HUB, hub_row(0, 7, []), hub_row(9, 1, [])], 2)):
        found = read(tmp_path, content)
        assert all(len(task.probes) and "none" not in task.probes[0].golds for task in found.tasks)
        first, second = found.notes
        assert f"{unanswered} question(s) without an answer" in first
        assert f"(the first: {tmp_path / 'questions'}, " in first
        assert "1 passage(s) without an answered question are left out" in second


def test_what_is_empty_is_left_out_and_counted(tmp_path: Path) -> None:
    good = {"context": "A mill.", "qas": [question("What?", ["a mill"])]}
    articles = [{"title": "A", "paragraphs": []}, {"title": "B", "paragraphs": [{"context": "No.", "qas": []}, good]}]
    found = read(tmp_path, {"data": articles})
    assert [task.title for task in found.tasks] == ["B"]
    assert "1 passage(s)" in found.notes[0]
    rows = [{"context": "No.", "probes": []}, {"context": "3 bridges.", "probes": [{"question": "?", "answers": ["3", " ", ""]}]}]
    found = read(tmp_path, jsonl(rows))
    assert [task.probes[0].golds for task in found.tasks] == [("3",)]
    assert "of 1 question(s) an empty answer is left out" in found.notes[0]
    nothing = [{"question": "?", "answer": answer} for answer in (None, "", [], {"text": []}, ["", None])]
    found = read(tmp_path, [{"context": "3 bridges.", "questions": [*nothing, {"question": "?", "answer": 3}]}])
    assert len(found.tasks[0].probes) == 1
    assert "5 question(s) without an answer" in found.notes[0]


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        (3, ("3",)),
        (-40, ("-40",)),
        (1970.0, ("1970",)),
        (1.5, ("1.5",)),
        ([3, "three"], ("3", "three")),
        ({"text": ["3", "three"], "answer_start": [0, 4]}, ("3", "three")),
        ({"text": 3}, ("3",)),
        ([{"text": "3"}, {"text": "3"}, {"text": "three"}], ("3", "three")),
        ({"value": "3", "aliases": ["3", "three"]}, ("3", "three")),
    ],
)
def test_answers_may_be_numbers_and_lists_in_either_field(tmp_path: Path, answer: Any, golds: tuple[str, ...]) -> None:
    for name in ("answer", "answers"):
        row = {"id": 12, "title": 1984, "context": "3 bridges.", name: answer}
        (task,) = read(tmp_path, jsonl([{**row, "question": "How many?"}])).tasks
        assert task.probes[0].golds == golds
        (task,) = read(tmp_path, [{**row, "probes": [{"question": "How many?", name: answer}]}]).tasks
        assert (task.id, task.title, task.probes[0].golds) == ("12", "1984", golds)


VARIANTS = {
    "the same": lambda text: text,
    "other white space": lambda text: text.replace(" ", "  \n", 2) + "\r\n",
    "other case": str.upper,
    "invisible characters": lambda text: "\ufeff" + text.replace("town", "to\u00adwn\u200b"),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "full-width digits": lambda text: text.translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)}),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", ["own ids", "no ids", "other titles", "squad", "rows", "parts"])
def test_a_passage_is_in_one_split_whatever_its_ids_and_titles(tmp_path: Path, form: str, variant: str) -> None:
    def row(n: int, q: int) -> dict[str, Any]:
        context = VARIANTS[variant](passage(n)) if q % 2 else passage(n)
        asked = {"question": f"Question {q} of {n}?", "answer": n + 3}
        made = {"title": f"Town {n}", "context": context, "probes": [asked]}
        more: dict[str, dict[str, Any]] = {
            "own ids": {"id": f"q{n}-{q}"},
            "other titles": {"title": f"Town {n}, {q}"},
            "parts": {"id": n * 10 + q, "context": context.split(" ", 4) if q == 2 else context},
        }
        if form == "rows":
            return {"id": f"q{n}-{q}", "title": "Towns", "context": context, **asked}
        return made | more.get(form, {})

    rows = [row(n, q) for q in range(4) for n in range(24)]
    path = tmp_path / "tasks"
    if form == "squad":
        paragraphs = [{"id": str(i), "context": r["context"], "qas": r["probes"]} for i, r in enumerate(rows)]
        halves = [{"title": str(i), "paragraphs": paragraphs[i::2]} for i in range(2)]
        path.write_text(json.dumps({"data": halves}))
    else:
        path.write_bytes(jsonl(rows))
    source = File(TaskSettings(source=str(path), evaluation=6, dev=5, per_round=40), 0)
    splits = [source.draw(1), source.dev(), source.evaluation()]
    assert [len(split) for split in splits] == [24 - 6 - 6 - 5, 5, 6]
    assert all(len(task.probes) == 4 for split in splits for task in split)
    towns = [{task.text.casefold().split("has")[0][-5:] for task in split} for split in splits]
    assert not towns[0] & towns[1] | towns[0] & towns[2] | towns[1] & towns[2]
    assert any("72 passage(s) come again" in note for note in source.notes) == (form != "rows")


def test_the_split_follows_the_passage_and_not_its_id(tmp_path: Path) -> None:
    def evaluation(**fields: Any) -> set[str]:
        path = tmp_path / "tasks"
        rows = [{"context": passage(n), "probes": [{"question": "?", "answer": 3}]} for n in range(30)]
        path.write_bytes(jsonl([row | {name: value(n) for name, value in fields.items()} for n, row in enumerate(rows)]))
        source = File(TaskSettings(source=str(path), evaluation=6, dev=5, per_round=40), 0)
        return {task.text for task in source.evaluation()}

    assert evaluation() == evaluation(id=lambda n: f"x{n}") == evaluation(title=lambda n: f"Title {n * 7}")


def test_questions_of_a_passages_rows_are_put_together(tmp_path: Path) -> None:
    asked = {"question": "How many?", "answer": "3"}
    rows = [
        {"id": "one", "title": "T", "context": "A town.", "probes": [asked], "edit": "- 3 bridges"},
        {"id": "two", "context": "Another.", "probes": [asked]},
        {"id": "three", "title": "U", "context": "A  town.", "family": "f", "edit": "- a mill", "probes": [
            {"question": "how many? ", "answer": "three"}, {"question": "What else?", "answer": "a mill"}]},
        {"id": "four", "context": "A town.", "edit": "- a mill", "probes": [asked]},
    ]  # fmt: skip
    found = read(tmp_path, jsonl(rows))
    town, other = found.tasks
    assert (town.id, town.title, town.family, town.gold_edit) == ("one", "T", "f", "- 3 bridges\n- a mill")
    assert [probe.golds for probe in town.probes] == [("3", "three"), ("a mill",)]
    assert other.id == "two"
    assert len(found.notes) == 2
    assert any("2 passage(s) come again" in note for note in found.notes)
    assert any("2 question(s) come again" in note for note in found.notes)


def test_what_was_left_out_stands_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_bytes(jsonl([hub_row(n, q, [] if q else ["3"]) for n in range(8) for q in range(2)]))
    settings = make_settings({"tasks": {"source": str(path), "evaluation": 2, "dev": 2, "per_round": 2}})
    notes = File(settings.tasks, 0).notes
    assert any("8 question(s) without an answer" in line for line in plan(settings, notes=notes)["lines"])


# Files that are something else


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.jsonl", "{}")
    return made.getvalue()


def tarred() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jsonl"))
    return made.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665fbd3\nsize 988097824\n"
LINE = jsonl(HUB[:1])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (POINTER, "Git LFS pointer, not the file that it stands for; .*git lfs pull"),
        (POINTER.replace(b"\n", b"\r\n"), "Git LFS pointer"),
        (b"/annex/objects/SHA256E-s3--1.jsonl\n", "git-annex pointer"),
        (zipped(), "a zip archive .*unpack it"),
        (tarred(), "a tar archive; unpack it"),
        (LINE.decode().encode("utf-16"), "UTF-16, not UTF-8; save it as UTF-8"),
        (LINE.decode().encode("utf-16-le"), "UTF-16, not UTF-8"),
        (LINE.decode().encode("utf-16-be"), "UTF-16, not UTF-8"),
        (LINE.decode().encode("utf-32"), "UTF-32, not UTF-8"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "compressed with zstd; unpack it"),
        (b"ARROW1\0\0" + bytes(9), "an Arrow file; convert it to JSONL"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x00\x01\x02garbage", "a binary file"),
        (b"\n<!DOCTYPE HTML><html>Sign in</html>", "a web page"),
        (gzip.compress(LINE * 99)[:-20], "can't be read to its end .*truncated"),
        (b"\x1f\x8b" + b"garbage" * 9, "can't be read to its end"),
        (bz2.compress(LINE)[:-9], "can't be read to its end"),
        (gzip.compress(POINTER), "Git LFS pointer"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else value[:20],  # some bytes are the time
)
def test_a_file_of_another_format_is_called_by_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(TaskFileError, match=f"questions: .*{told}"):
        read(tmp_path, content)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = as_parquet(HUB)
    for content in (whole[:-30], whole[:40] + bytes(60) + whole[100:], b"PAR1" + bytes(90) + b"PAR1"):
        with pytest.raises(TaskFileError, match="the Parquet file can't be read"):
            read(tmp_path, content)


def test_of_a_parquet_file_the_row_is_named(tmp_path: Path) -> None:
    rows = [{"context": "A mill.", "question": "What?", "answer": answer} for answer in (["a mill"], [" "], None)]
    rows[2]["question"] = " "
    with pytest.raises(TaskFileError, match=r"questions, \[2\]\.question: the text is empty"):
        read(tmp_path, as_parquet(rows))


def test_without_pyarrow_a_parquet_file_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"questions is a Parquet file: pip install 'selfedit\[parquet\]'"):
        read(tmp_path, b"PAR1" + bytes(90) + b"PAR1")
