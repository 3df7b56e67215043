"""Tasks files: three forms, one way in; every complaint names its place; what is written reads back."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from selfedit.characters import passage_key
from selfedit.errors import SettingsError, TaskFileError
from selfedit.tasks import places
from selfedit.tasks.files import as_text, content_id, read_tasks
from selfedit.types import Probe, Task

QA = {"question": "Who?", "answer": "Ann"}
RECORD = {"id": "one", "title": "T", "context": "Ann did.", "probes": [QA]}
FLAT = [
    {"title": "T", "context": "Ann did.", "questions": [QA]},
    {"title": "T", "context": "Bob too.", "questions": [QA]},
]
SQUAD: dict[str, Any] = {
    "version": "1.1",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "Ann did.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Who?",
                            "answers": [{"text": t, "answer_start": 0} for t in ("Ann", "Ann", "ann")],
                        }
                    ],
                },
                {"context": "Bob too.", "qas": [{"id": "2", "question": "Who?", "answers": [{"text": "Bob"}]}]},
            ],
        }
    ],
}


def read(tmp_path: Path, content: Any) -> list[Task]:
    path = tmp_path / "tasks"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return list(read_tasks(path))


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


# Reading


def test_the_form_is_told_by_the_content(tmp_path: Path) -> None:
    first = Task(content_id("T", ("Ann did.",)), "T", ("Ann did.",), (Probe("Who?", "Ann"),))
    assert read(tmp_path, FLAT)[0] == first
    assert read(tmp_path, json.dumps(FLAT, indent=2).encode())[0] == first
    assert read(tmp_path, lines(*FLAT))[0] == first
    assert read(tmp_path, SQUAD)[0] == replace(first, probes=(Probe("Who?", "Ann", "", ("ann",)),))
    assert read(tmp_path, json.dumps(SQUAD, indent=1).encode()) == read(tmp_path, SQUAD)
    assert read(tmp_path, b"\n \r\n" + lines(RECORD).replace(b"\n", b"\r\n") + b"\n\n")[0].id == "one"
    assert read(tmp_path, b"\xef\xbb\xbf" + lines(RECORD))[0].id == "one"


def test_every_field_of_a_jsonl_task_is_read(tmp_path: Path) -> None:
    record = {
        "id": "x",
        "context": ["one", "two"],
        "questions": [
            {"question": "a?", "answers": ["b", "c", "b"], "kind": "direct"},
            {"question": "d?", "answer": "e", "also": ["f"], "seen_on": 1970},
            {"question": "g?", "answer": "h", "answers": ["i"], "also": ["j"]},
        ],
        "title": None,
        "edit": "- a fact",
        "family": "e1",
        "source": {"page": 3},
    }
    probes = (Probe("a?", "b", "direct", ("c",)), Probe("d?", "e", "", ("f",)), Probe("g?", "h", "", ("i", "j")))
    assert read(tmp_path, lines(record)) == [Task("x", "", ("one", "two"), probes, "- a fact", "e1")]


def test_ids_come_from_title_and_context_and_stay_the_same() -> None:
    assert content_id("Super Bowl 50!", ("x",)) == "super-bowl-50-8b64ad5f4a5a04d8"
    assert content_id("Super Bowl 50!", ("x", "y")) != content_id("Super Bowl 50!", ("xy",))
    assert content_id("", ("x",)) != content_id("x", ("",))
    assert content_id("北京", ("x",)).startswith("北京-")


def test_a_paragraph_told_twice_in_an_article_is_one_task_with_all_its_questions(tmp_path: Path) -> None:
    again = {
        "context": "Ann did.",
        "qas": [*SQUAD["data"][0]["paragraphs"][0]["qas"], {"question": "What?", "answers": [{"text": "did"}]}],
    }
    article = {"title": "T", "paragraphs": [*SQUAD["data"][0]["paragraphs"], again]}
    tasks = read(tmp_path, {"data": [article]})
    assert [[probe.question for probe in task.probes] for task in tasks] == [["Who?", "What?"], ["Who?"]]


def test_jsonl_is_read_one_line_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for n in range(3000):  # one passage, with a question in each line
            stream.write(json.dumps({"context": "w" * 5000, "question": f"What is {n}?", "answer": n}) + "\n")
        stream.write("this is not JSON\n")
    tracemalloc.start()
    try:
        with pytest.raises(TaskFileError, match="line 3001"):
            list(read_tasks(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 15e6
    assert peak < 3e6


def test_all_of_squads_validation_set_is_read_in_little_memory(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    path = shared_data("squad/squad_val.json")
    tracemalloc.start()
    try:
        tasks = list(read_tasks(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(tasks), sum(len(task.probes) for task in tasks)) == (2067, 10570)
    assert len({task.id for task in tasks}) == 2067
    assert peak < 100e6
    for form in ("jsonl", "squad"):
        assert read(tmp_path, as_text(tasks, form).encode()) == tasks  # type: ignore[arg-type]


def test_a_large_document_that_is_not_jsonl_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_BYTES", 200)
    long = {**RECORD, "context": "x" * 100}
    for content in (json.dumps(FLAT * 2, indent=1).encode(), json.dumps(SQUAD).encode(), b"[" + b" " * 300):
        with pytest.raises(TaskFileError, match="convert it to JSONL"):
            read(tmp_path, content)
    assert len(read(tmp_path, lines(long, {**long, "id": "two", "context": "y" * 100}))) == 2
    with pytest.raises(TaskFileError, match="line 2: the line is longer"):
        read(tmp_path, lines(RECORD, {**long, "context": "x" * 200}))


# Complaints


def broken(**fields: Any) -> bytes:
    """A good line, then one with ``fields`` changed (None takes the field away)."""
    record = {name: value for name, value in {**RECORD, "id": "two", **fields}.items() if value is not None}
    return lines(RECORD, record)


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b"", "tasks:", "empty"),
        (b"\n  \n", "tasks:", "empty"),
        (b"\xef\xbb\xbf", "tasks:", "empty"),
        (b"hello", "line 1", "breaks at column 1"),
        (lines(RECORD) + b'{"context": "x", "probes": [', "line 2", "truncated"),
        (lines(RECORD) + b'{"context": "x', "line 2", "truncated"),
        (json.dumps(FLAT, indent=1).encode()[:-30], "line ", "truncated"),
        (json.dumps(SQUAD, indent=1).encode()[:150], "line ", "truncated"),
        (b'{"data": []}\n{"data": []}', "line 2", "trailing characters"),
        (lines(RECORD) + b'{"context": "\xff"}', "line 2:", "column 14 (invalid unicode code point); it is not UTF-8"),
        (b'[\n{"context": "\xff"}]', "line 2:", "column 14 (invalid unicode code point); it is not UTF-8"),
        (b"context,question,answer\nAnn did.,Who?,Ann", "line 1", "CSV, YAML and others are not read"),
        (b"- context: Ann did.\n  probes: []", "line 1", "CSV, YAML and others are not read"),
        (
            lines(RECORD) + b'{"context": NaN}',
            "line 2",
            "column 13 (expected value); correct it there (JSON has no NaN",
        ),
        (b'[{"context": "NaN",\n "title": -Infinity}]', "line 2", "column 12 (invalid number)"),
        (b"[" * 100_000, "line 1:", "recursion limit exceeded"),
        (lines(RECORD) + b"9" * 5000, "line 2", "number out of range"),
        (lines(RECORD, [1]), "line 2", "expected an object, found a list"),
        (b'"text"\n', "line 1", "expected an object, found text"),
        (broken(context=None), "line 2, context", "missing"),
        (broken(context=" \n"), "line 2, context", "empty"),
        (broken(context=[]), "line 2, context", "empty"),
        (broken(context=["x", 3]), "line 2, context[1]", "expected text, found a number"),
        (broken(probes=None), "line 2, probes", "missing"),
        (broken(probes={}), "line 2, probes", "expected a list, found an object"),
        (broken(probes=[QA, {"question": "Who?"}]), "line 2, probes[1]:", "the question has no answer"),
        (broken(probes=None, questions=[{"answer": "Ann"}]), "line 2, questions[0].question", "missing"),
        (broken(probes=[{**QA, "answer": True}]), "line 2, probes[0].answer[0]", "expected text, found true or false"),
        (
            broken(probes=[{**QA, "answers": [{"word": 3}]}]),
            "line 2, probes[0].answers[0]",
            "expected text, found an object",
        ),
        (broken(title=[]), "line 2, title", "expected text, found a list"),
        (broken(id=[7]), "line 2, id", "expected text, found a list"),
        (broken(context="\ud800"), "line 2:", "surrogate"),
        (broken(id="one", context="Bob too."), "line 2:", "is there already, at"),
        (lines({"id": 1, **FLAT[0]}, {"id": "1", **FLAT[1]}), "line 2:", "the id '1' is there already"),
        ([], "tasks:", "no task"),
        ([{"title": "T"}], "[0].context", "missing (there are: title)"),
        ({"train": FLAT}, "context", "missing (there are: train)"),
        ({"data": {}}, "data", "expected a list"),
        ({"data": []}, "data", "empty"),
        ({"data": [{"title": "T", "paragraphs": {}}]}, "data[0].paragraphs", "expected a list"),
        ({"data": [{"paragraphs": [{"context": "x"}]}]}, "data[0].paragraphs[0].qas", "missing"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": []}]}]}, "data[0].paragraphs[0])", "no question has an answer"),
        (
            {"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "?", "answers": []}]}]}]},
            "data[0].paragraphs[0])",
            "no question has an answer; 1 question(s) without an answer, such as SQuAD v2's",
        ),
        (
            {"data": [{"paragraphs": [{"context": "x", "qas": [{"question": "?", "answers": [{"text": float("nan")}]}]}]}]},
            "line 1",
            "NaN",
        ),
    ],
)
def test_a_complaint_names_the_place_the_problem_and_what_to_do(tmp_path: Path, content: Any, place: str, problem: str) -> None:
    with pytest.raises(TaskFileError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "tasks"))
    assert place in message
    assert problem in message
    assert "; " in message  # what to do follows


def test_a_file_that_can_not_be_opened_is_a_tasks_file_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path, "nul\0name"):
        with pytest.raises(TaskFileError, match="can't be opened"):
            next(read_tasks(path))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "title",
                    "paragraphs",
                    "context",
                    "qas",
                    "probes",
                    "question",
                    "answers",
                    "answer",
                    "text",
                    "id",
                    "also",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
VALID = [
    json.dumps(FLAT).encode(),
    json.dumps(SQUAD).encode(),
    lines(RECORD, {**RECORD, "id": "two"}),
    json.dumps(SQUAD, indent=1).encode(),
]


def _swapped(value: Any, path: list[int], other: Any) -> Any:
    """``value`` with something inside it replaced by ``other``."""
    if not path or not isinstance(value, dict | list) or not value:
        return other
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = _swapped(value[key], path[1:], other)
    return copy


FILES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda raw, at: raw[: at % len(raw)], st.sampled_from(VALID), st.integers(0)),
    st.builds(
        lambda raw, at, junk: raw[: at % len(raw)] + junk + raw[at % len(raw) + len(junk) :],
        st.sampled_from(VALID),
        st.integers(0),
        st.binary(max_size=3),
    ),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    st.lists(JSON_VALUES, max_size=3).map(lambda values: lines(*values)),
    st.builds(_swapped, st.sampled_from([FLAT, SQUAD, RECORD]), st.lists(st.integers(0, 5), max_size=8), JSON_VALUES).map(
        lambda value: json.dumps(value).encode()
    ),
)


@settings(max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(FILES)
@example(b'{"context": "x", "probes": [{"question": "\\ud800", "answer": "y"}]}')
@example(b'{"a":' * 50_000)
def test_any_file_gives_tasks_or_a_tasks_file_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    try:
        tasks = list(read_tasks(path))
    except TaskFileError:
        return
    except SettingsError:
        assert content.startswith(b"PAR1")  # pyarrow may be absent
        return
    assert tasks
    assert all(task.id and task.text.strip() and task.probes for task in tasks)
    assert all(gold.strip() for task in tasks for probe in task.probes for gold in probe.golds)
    assert read(tmp_path, as_text(tasks).encode()) == tasks


# Writing

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
OPTIONAL = st.just("") | TEXTS
PROBES = st.builds(Probe, TEXTS, TEXTS, OPTIONAL, st.lists(TEXTS, max_size=2).map(tuple))
TASKS = st.lists(
    st.builds(
        Task,
        TEXTS,
        OPTIONAL,
        st.lists(TEXTS, min_size=1, max_size=2).map(tuple),
        st.lists(PROBES, min_size=1, max_size=3).map(tuple),
        OPTIONAL,
        OPTIONAL,
    ),
    min_size=1,
    max_size=4,
    unique_by=(lambda task: task.id, lambda task: passage_key(task.text)),
)


def squad_view(task: Task) -> Task:
    """What SQuAD's form can hold of a task."""

    def plain(probe: Probe) -> Probe:
        first, *others = dict.fromkeys(probe.golds)
        return Probe(probe.question, first, "", tuple(others))

    return Task(task.id, task.title, task.context[:1], tuple(plain(probe) for probe in task.probes))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(TASKS)
def test_what_is_written_reads_back(tmp_path: Path, tasks: list[Task]) -> None:
    assert read(tmp_path, as_text(iter(tasks)).encode()) == tasks
    single = [replace(task, context=task.context[:1]) for task in tasks]
    assert read(tmp_path, as_text(single, "squad").encode()) == [squad_view(task) for task in tasks]


def test_the_squad_form_is_squads_own(tmp_path: Path) -> None:
    data = json.loads(as_text(read(tmp_path, SQUAD), "squad"))
    assert data["version"] == "1.1"
    (article,) = data["data"]
    assert article["title"] == "T"
    answers = article["paragraphs"][0]["qas"][0]["answers"]
    assert answers == [{"text": "Ann", "answer_start": 0}, {"text": "ann", "answer_start": -1}]
