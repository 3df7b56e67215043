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
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..errors import TaskFileError
from ..types import Probe, Task
from .places import Form, Place, Text, checked, json_lines, opened, parsed, read_rest


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
    data: list[_Article] = Field(min_length=1)


def read_tasks(path: str | Path) -> Iterator[Task]:
    """The tasks of a file, one at a time and in its order; the form is recognised from the content, not from the name.

    JSONL is read line by line; the other forms are parsed whole. A line or document of more than 256 MiB is refused. A task
    without an id gets one from its content (title, and hash of title and context), the same on every reading; the ids seen
    are kept in memory. A paragraph that occurs twice in one SQuAD article is one task with the questions of both.

    Raises:
        TaskFileError: while iterating. The file can't be opened, is empty, truncated, not JSON or not UTF-8; a field is
            missing, of the wrong type or empty; an id or a passage occurs twice. The message names file, line, field.
    """
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
    for i, article in enumerate(checked(_Squad, value, at).data):
        here = at.of("data", i)
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


def as_text(tasks: Iterable[Task], form: Literal["jsonl", "squad"] = "jsonl") -> str:
    """Tasks as the text of a tasks file.

    ``jsonl`` reads back equal. ``squad`` is SQuAD v1.1 for other tools (``answer_start`` is -1 where the passage does not hold
    the answer): it keeps id, title, context, questions and answers, and leaves out ``gold_edit``, ``family`` and ``kind``;
    equal answers of one probe become one.
    """
    if form == "jsonl":
        return "".join(json.dumps(_record(task), ensure_ascii=False) + "\n" for task in tasks)
    articles = (
        json.dumps({"title": title, "paragraphs": [_paragraph(task) for task in group]}, ensure_ascii=False)
        for title, group in groupby(tasks, key=lambda task: task.title)
    )
    return '{"version": "1.1", "data": [\n' + ",\n".join(articles) + "\n]}\n"


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


def _paragraph(task: Task) -> dict[str, Any]:
    qas = [
        {
            "id": f"{task.id}-{n}",
            "question": probe.question,
            "answers": [{"text": gold, "answer_start": task.text.find(gold)} for gold in probe.golds],
        }
        for n, probe in enumerate(task.probes)
    ]
    return {"id": task.id, "context": task.text, "qas": qas}
