"""Tasks in files: SQuAD v1 JSON, its flat form, and JSONL, recognised from the content.

=========  =====================================================================================================
SQuAD v1   ``{"data": [{"title", "paragraphs": [{"context", "qas": [{"question", "answers": [{"text"}]}]}]}]}``
flat       ``[{"title", "context", "questions": [{"question", "answer"}]}]``
JSONL      one task per line: ``{"id"?, "title"?, "context": text | [text], "edit"?, "family"?, "probes" |
           "questions": [{"question", "answer" | "answers", "also"?, "kind"?}]}``
=========  =====================================================================================================

Several answers: the first is ``Probe.answer``, the other distinct ones are ``Probe.also``. Unknown fields are ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..errors import DiskError, SettingsError, TaskFileError
from ..types import Probe, Task
from .places import MAX_BYTES, Form, Place, Text, checked, json_lines, opened, parsed, read_rest

CHANGED = "put the file back as it was when the run began, or start another run"


def _in_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _text_of(value: Any) -> Any:
    return value.get("text") if isinstance(value, dict) else value


class _Question(Form):
    question: Text
    answer: Text | None = None
    answers: list[Annotated[Text, BeforeValidator(_text_of)]] = Field([])
    also: list[Text] = Field([])
    kind: str | None = None

    @model_validator(mode="after")
    def _is_answered(self) -> Self:
        if self.answer is None and not self.answers:
            raise PydanticCustomError(
                "no_answer",
                "the question has no answer; give one, or leave the question out (SQuAD v2 marks such questions is_impossible)",
            )
        return self

    def probe(self) -> Probe:
        answers = [] if self.answer is None else [self.answer]
        first, *others = [*answers, *dict.fromkeys(self.answers), *self.also]
        return Probe(self.question, first, self.kind or "", tuple(others))


class _Record(Form):
    """A line of JSONL, or an item of the flat form."""

    id: str | None = None
    title: str | None = None
    context: Annotated[list[Text], Field(min_length=1), BeforeValidator(_in_list)]
    edit: str | None = None
    family: str | None = None
    probes: list[_Question] = Field(min_length=1, validation_alias=AliasChoices("probes", "questions"))

    def task(self, title: str | None) -> Task:
        context, title = tuple(self.context), title or ""
        probes = tuple(question.probe() for question in self.probes)
        task_id = self.id or content_id(title, context)
        return Task(task_id, title, context, probes, self.edit or "", self.family or "")


class _Paragraph(_Record):
    probes: list[_Question] = Field(min_length=1, validation_alias="qas")


class _Article(Form):
    title: str | None = None
    paragraphs: list[_Paragraph] = Field(min_length=1)


class _Squad(Form):
    data: list[Any] = Field(min_length=1)  # articles, checked one at a time


def read_tasks(path: str | Path) -> Iterator[Task]:
    """The tasks of a file, one at a time and in its order; the form is recognised from the content, not from the name.

    JSONL is read line by line; the other forms are parsed whole. A line or document of more than 256 MiB is refused. A task
    without an id gets one from its content (title, and hash of title and context), the same on every reading; the ids seen
    are kept in memory. A paragraph that occurs twice in one SQuAD article is one task with the questions of both.

    Raises:
        TaskFileError: while iterating. The file can't be opened, is empty, truncated, not JSON or not UTF-8; a field is
            missing, of the wrong type or empty; an id or a passage occurs twice. The message names file, line, field.
    """
    return (task for _, task in placed_tasks(path))


def placed_tasks(path: str | Path) -> Iterator[tuple[Place, Task]]:
    """As `read_tasks`, each task with its place: `tasks_at` finds it there, where the place has an ``offset`` (JSONL)."""
    path = Path(path)
    seen: dict[str, Place] = {}
    with opened(path) as stream:
        for place, task in _tasks(stream, Place(path)):
            if task.id in seen:
                place.fail(
                    f"the task {task.id!r} is there already, at {seen[task.id]}",
                    "drop one of them, or give them different ids (without ids, title and context make the task)",
                )
            seen[task.id] = place
            yield place, task


def tasks_at(path: Path, places: Mapping[str, Place]) -> Iterator[Task]:
    """The tasks of a JSONL file whose ids and places (with an ``offset``) are known, in the order of the file.

    Raises:
        TaskFileError: while iterating. Another task, or none, is there now.
    """
    with opened(path) as stream:
        for task_id, place in sorted(places.items(), key=lambda item: item[1].offset or 0):
            stream.seek(place.offset or 0)
            try:
                task = _task(parsed(stream.readline(MAX_BYTES + 1), place), place)
            except TaskFileError:  # what is there may be anything
                task = None
            if task is None or task.id != task_id:
                place.fail(f"the task {task_id!r} is not there any more", CHANGED)
            yield task


def _tasks(stream: IO[bytes], at: Place) -> Iterator[tuple[Place, Task]]:
    lines = json_lines(stream, at)
    start, head = next(lines, (at, b""))
    if not head:
        at.fail("the file is empty", "write one task per line (JSONL), or SQuAD JSON")
    if _is_jsonl(head, start):
        for place, line in chain([(start, head)], lines):
            yield place, _task(parsed(line, place), place)
        return
    value = parsed(b"\n" * ((start.line or 1) - 1) + head + read_rest(stream, at), at)
    if isinstance(value, dict):
        yield from _squad(value, at)
    elif not value:
        at.fail("the list holds no task", "give at least one")
    else:
        yield from ((at.of(i), _task(record, at.of(i))) for i, record in enumerate(value))


def _is_jsonl(head: bytes, at: Place) -> bool:
    """Whether a file's first line is a whole task (or a mistake in place of one), rather than the beginning of a document."""
    try:
        first = parsed(head, at)
    except TaskFileError:
        return False  # perhaps an indented document; if not, parsing the whole says where it breaks
    return not isinstance(first, list) and not (isinstance(first, dict) and "data" in first and "context" not in first)


def _task(value: Any, at: Place) -> Task:
    record = checked(_Record, value, at)
    return record.task(record.title)


def _squad(value: dict[str, Any], at: Place) -> Iterator[tuple[Place, Task]]:
    for i, data in enumerate(checked(_Squad, value, at).data):
        here = at.of("data", i)
        article = checked(_Article, data, here)
        passages: dict[tuple[int | None, tuple[str, ...]], tuple[Place, Task]] = {}
        for j, paragraph in enumerate(article.paragraphs):
            task = paragraph.task(article.title)
            # SQuAD's train file has a few paragraphs twice; one passage must not land in train and in test.
            key = (j if paragraph.id else None, task.context)
            place, first = passages.get(key, (here.of("paragraphs", j), replace(task, probes=())))
            more = tuple(probe for probe in task.probes if probe not in first.probes)
            passages[key] = place, replace(first, probes=first.probes + more)
        yield from passages.values()


def content_id(title: str, context: tuple[str, ...]) -> str:
    """A stable, readable id for a task without one: some of the title, then 64 bits of SHA-256 of title and context."""
    digest = hashlib.sha256(json.dumps([title, *context]).encode()).hexdigest()[:16]
    words = "-".join(re.findall(r"[^\W_]+", title.lower()))[:32].strip("-")
    return f"{words}-{digest}" if words else digest


def write_tasks(tasks: Iterable[Task], path: str | Path, form: Literal["jsonl", "squad"] = "jsonl") -> int:
    """Write tasks to a file, all or nothing, and return how many; what is there already is replaced at the end.

    ``jsonl`` reads back equal. ``squad`` is SQuAD v1.1 for other tools (``answer_start`` is -1 where the passage does
    not hold the answer): it keeps id, title, context, questions and answers, and leaves out ``gold_edit``, ``family``
    and ``kind``; equal answers of one probe become one. Tasks are taken one at a time.

    Raises:
        TaskFileError: a task that could not be read back (nothing to ask, an empty text, an id twice), or one of
            several context parts in the form ``squad``, which knows none. The message names the task.
        DiskError: the file can't be written.
        SettingsError: an unknown form.
    """
    if form not in ("jsonl", "squad"):
        raise SettingsError(f"there is no form {form!r} of task files; choose jsonl or squad")
    path = Path(path)
    # Beside the file, because only a rename within one file system is atomic.
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    seen: set[str] = set()
    readable = _readable(tasks, Place(path), form, seen)
    try:
        with scratch.open("w", encoding="utf-8") as stream:
            stream.writelines(_jsonl_texts(readable) if form == "jsonl" else _squad_texts(readable))
            stream.flush()
            os.fsync(stream.fileno())
        if not seen:
            Place(path).fail("there is no task to write", "a tasks file holds at least one")
        scratch.replace(path)
    except OSError as error:
        raise DiskError(f"{path} can't be written ({error}); make room, or choose another path") from error
    finally:
        with suppress(OSError):
            scratch.unlink()
    return len(seen)


def _readable(tasks: Iterable[Task], at: Place, form: str, seen: set[str]) -> Iterator[Task]:
    """The tasks, each once it is sure to be read back as it is; their ids are added to ``seen``."""
    for n, task in enumerate(tasks):
        here = replace(at, field=f"task {n} ({task.id!r})")
        if task.id in seen:
            here.fail("a task with this id is there already", "give every task its own id")
        seen.add(task.id)
        if not task.id:
            here.fail("the task has no id", "give it one, such as content_id(task.title, task.context)")
        if form == "squad" and len(task.context) != 1:
            here.fail(
                f"the form squad holds one context part, this task has {len(task.context)}", "write jsonl instead"
            )
        record = checked(_Record, _record(task), here)
        try:
            record.model_dump_json()
        except ValueError:
            here.fail("a text holds half a surrogate pair (\\ud800 to \\udfff), which UTF-8 can't encode", "remove it")
        yield task


def _record(task: Task) -> dict[str, Any]:
    context: str | list[str] = task.context[0] if len(task.context) == 1 else list(task.context)
    probes = [
        {"question": probe.question, "answer": probe.answer, **_given(also=list(probe.also), kind=probe.kind)}
        for probe in task.probes
    ]
    given = _given(edit=task.gold_edit, family=task.family)
    return {"id": task.id, "title": task.title, "context": context, **given, "probes": probes}


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value}


def _jsonl_texts(tasks: Iterable[Task]) -> Iterator[str]:
    for task in tasks:
        yield json.dumps(_record(task), ensure_ascii=False) + "\n"


def _squad_texts(tasks: Iterable[Task]) -> Iterator[str]:
    yield '{"version": "1.1", "data": ['
    for n, (title, group) in enumerate(groupby(tasks, key=lambda task: task.title)):
        article = {"title": title, "paragraphs": [_paragraph(task) for task in group]}
        yield (",\n" if n else "\n") + json.dumps(article, ensure_ascii=False)
    yield "\n]}\n"


def _paragraph(task: Task) -> dict[str, Any]:
    (context,) = task.context
    qas = [
        {
            "id": f"{task.id}-{n}",
            "question": probe.question,
            "answers": [{"text": gold, "answer_start": context.find(gold)} for gold in probe.golds],
        }
        for n, probe in enumerate(task.probes)
    ]
    return {"id": task.id, "context": context, "qas": qas}
