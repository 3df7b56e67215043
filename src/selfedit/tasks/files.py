"""Tasks in files: SQuAD v1 JSON, its flat form, and JSONL, told apart by content.

Three forms, one way in: values are read with their place (file, line, field), so that every complaint names it.

=========  =====================================================================================================
SQuAD v1   ``{"data": [{"title", "paragraphs": [{"context", "qas": [{"question", "answers": [{"text"}]}]}]}]}``
flat       ``[{"title", "context", "questions": [{"question", "answer"}]}]``
JSONL      one task a line: ``{"id"?, "title"?, "context": text | [text], "edit"?, "family"?, "probes" | "questions":
           [{"question", "answer", "also"? | "answers", "kind"?}]}``
=========  =====================================================================================================

Several answers: the first is ``Probe.answer``, the other distinct ones are ``Probe.also``. Unknown fields are ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Literal

from ..errors import DiskError, SettingsError, TaskFileError
from ..types import Probe, Task
from .places import Place, decoded, named, object_at, optional_text, parsed, required_list, required_text, text_at

# A JSON document is parsed whole, at several times its size in memory; JSONL streams, so that only a line is bounded.
MAX_JSON_BYTES = 256 * 2**20
MAX_LINE_BYTES = 64 * 2**20
CHANGED = "put the file back as it was when the run began, or start another run"


def read_tasks(path: str | Path) -> Iterator[Task]:
    """The tasks of a file, one at a time and in its order; the form is told by the content, not by the name.

    JSONL is read a line at a time (64 MiB at most); the other forms are parsed whole, and refused above 256 MiB. A task
    without an id gets one from its content (title, and hash of title and context), the same on every reading; the ids
    seen are kept in memory. A paragraph that occurs twice in one SQuAD article is one task with the questions of both.

    Raises:
        TaskFileError: while iterating. The file can't be opened, is empty, truncated, not JSON or not UTF-8; a field is
            missing, of the wrong type or empty; an id or a passage occurs twice. The message names file, line, field.
    """
    return (task for _, task in placed_tasks(path))


def placed_tasks(path: str | Path) -> Iterator[tuple[Place, Task]]:
    """As `read_tasks`, each task with its place: `tasks_at` finds it there, where the place has an ``offset`` (JSONL)."""
    path = Path(path)
    seen: dict[str, Place] = {}
    with _opened(path) as stream:
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
    with _opened(path) as stream:
        for task_id, place in sorted(places.items(), key=lambda item: item[1].offset or 0):
            stream.seek(place.offset or 0)
            line = stream.readline(MAX_LINE_BYTES + 1)
            task = None
            with suppress(TaskFileError):  # what is there may be anything
                task = record_to_task(parsed(decoded(line, place), place), place)
            if task is None or task.id != task_id:
                place.fail(f"the task {task_id!r} is not there any more", CHANGED)
            yield task


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{str(path)!r} can't be opened ({error}); check the path and its permissions") from error


def _tasks(stream: IO[bytes], at: Place) -> Iterator[tuple[Place, Task]]:
    head, n_blank, offset = _first_line(stream, at)
    start = replace(at, line=n_blank + 1, offset=offset)
    if not head.lstrip().startswith(b"["):
        try:
            first = json.loads(decoded(head, start))
        except (ValueError, RecursionError):
            pass  # perhaps the first line of an indented document; if not, parsing the whole says where it breaks
        else:
            if not (isinstance(first, dict) and "data" in first and "context" not in first):
                yield from _jsonl(head, stream, start)
                return
    value = parsed(decoded(_whole(b"\n" * n_blank + head, stream, at), at), at)
    yield from _squad(value, at) if isinstance(value, dict) else _flat(value, at)


def _first_line(stream: IO[bytes], at: Place) -> tuple[bytes, int, int]:
    """The first line that is not blank, how many blank ones come before it, and the byte at which it begins."""
    n_blank = offset = 0
    while line := stream.readline(MAX_JSON_BYTES + 1):
        # A byte order mark is not JSON, but editors on Windows write one.
        offset += len(line)
        line = line if n_blank else line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            return line, n_blank, offset - len(line)
        n_blank += 1
    at.fail("the file is empty", "write one task a line (JSONL), or SQuAD JSON")


def _whole(head: bytes, stream: IO[bytes], at: Place) -> bytes:
    pieces, size = [head], len(head)
    # In pieces: read(n) sets n bytes aside at once, however small the file is.
    while size <= MAX_JSON_BYTES and (piece := stream.read(2**20)):
        pieces.append(piece)
        size += len(piece)
    if size > MAX_JSON_BYTES:
        at.fail(
            f"the file does not begin with one whole task a line (JSONL), and is larger than the "
            f"{MAX_JSON_BYTES / 2**20:g} MiB that are parsed at once",
            "convert it to JSONL, which is read line by line",
        )
    return b"".join(pieces)


def _jsonl(head: bytes, stream: IO[bytes], at: Place) -> Iterator[tuple[Place, Task]]:
    line, number, offset = head, at.line or 1, at.offset or 0
    while line:
        here = replace(at, line=number, offset=offset)
        if len(line) > MAX_LINE_BYTES:
            here.fail(f"the line is longer than {MAX_LINE_BYTES / 2**20:g} MiB", "put one task on each line")
        if line.strip():
            yield here, record_to_task(parsed(decoded(line, here), here), here)
        offset += len(line)
        line = stream.readline(MAX_LINE_BYTES + 1)
        number += 1


def _squad(value: dict[str, Any], at: Place) -> Iterator[tuple[Place, Task]]:
    for i, article in enumerate(required_list(value, "data", at, least=1)):
        here = at.of("data").item(i)
        title = optional_text(object_at(article, here), "title", here)
        passages: dict[tuple[str, str], tuple[Place, Task]] = {}
        for j, paragraph in enumerate(required_list(article, "paragraphs", here, least=1)):
            spot = here.of("paragraphs").item(j)
            context = (required_text(object_at(paragraph, spot), "context", spot),)
            qas = enumerate(required_list(paragraph, "qas", spot, least=1))
            probes = tuple(_squad_probe(qa, spot.of("qas").item(n)) for n, qa in qas)
            given = optional_text(paragraph, "id", spot)
            key = (f"{j}" if given else "", context[0])
            if first := passages.get(key):
                # SQuAD's train file tells a few paragraphs twice; one passage must not land in train and in test.
                more = tuple(probe for probe in probes if probe not in first[1].probes)
                passages[key] = first[0], replace(first[1], probes=first[1].probes + more)
            else:
                passages[key] = spot, Task(given or content_id(title, context), title, context, probes)
        yield from passages.values()


def _squad_probe(value: Any, at: Place) -> Probe:
    question = required_text(object_at(value, at), "question", at)
    texts = [
        required_text(object_at(answer, at.of("answers").item(n)), "text", at.of("answers").item(n))
        for n, answer in enumerate(required_list(value, "answers", at))
    ]
    if not texts:
        at.of("answers").fail(
            "the question has no answer",
            "leave such questions out (SQuAD v2 marks them is_impossible), or give at least one answer",
        )
    return _probe(question, texts)


def _flat(value: Any, at: Place) -> Iterator[tuple[Place, Task]]:
    if not isinstance(value, list):
        at.fail(
            f"expected a list of tasks or SQuAD's object with data, found {named(value)}", "see the forms in the docs"
        )
    if not value:
        at.fail("the list holds no task", "give at least one")
    for i, record in enumerate(value):
        yield at.item(i), record_to_task(record, at.item(i))


def record_to_task(value: Any, at: Place) -> Task:
    """The task that a parsed JSONL line (or an item of the flat form) describes.

    Raises:
        TaskFileError: a field is missing, of the wrong type or empty; the message begins with the place.
    """
    record = object_at(value, at)
    title = optional_text(record, "title", at)
    if isinstance(record.get("context"), list):
        parts = required_list(record, "context", at, least=1)
        context = tuple(text_at(part, at.of("context").item(n)) for n, part in enumerate(parts))
    else:
        context = (required_text(record, "context", at),)
    name = "questions" if "probes" not in record and "questions" in record else "probes"
    probes = tuple(
        _record_probe(probe, at.of(name).item(n)) for n, probe in enumerate(required_list(record, name, at, least=1))
    )
    return Task(
        id=optional_text(record, "id", at) or content_id(title, context),
        title=title,
        context=context,
        probes=probes,
        gold_edit=optional_text(record, "edit", at),
        family=optional_text(record, "family", at),
    )


def _record_probe(value: Any, at: Place) -> Probe:
    record = object_at(value, at)
    question = required_text(record, "question", at)
    kind = optional_text(record, "kind", at)
    if "answers" not in record:
        also = enumerate(required_list(record, "also", at) if "also" in record else [])
        others = tuple(text_at(answer, at.of("also").item(n)) for n, answer in also)
        return Probe(question, required_text(record, "answer", at), kind, others)
    if "answer" in record:
        at.fail("both answer and answers are given", "keep one of them; answers lists all that count as right")
    answers = enumerate(required_list(record, "answers", at, least=1))
    return _probe(question, [text_at(answer, at.of("answers").item(n)) for n, answer in answers], kind)


def _probe(question: str, answers: list[str], kind: str = "") -> Probe:
    first, *others = dict.fromkeys(answers)
    return Probe(question, first, kind, tuple(others))


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
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    n_tasks = 0

    def counted() -> Iterator[Task]:
        nonlocal n_tasks
        for task in _readable(tasks, path, form):
            n_tasks += 1
            yield task

    try:
        with _disk(path):
            stream = scratch.open("xb")
        with stream:
            for text in _jsonl_texts(counted()) if form == "jsonl" else _squad_texts(counted()):
                with _disk(path):
                    stream.write(text.encode())
            with _disk(path):
                stream.flush()
                os.fsync(stream.fileno())
        if not n_tasks:
            Place(path).fail("there is no task to write", "a tasks file holds at least one")
        with _disk(path):
            scratch.replace(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
    return n_tasks


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(f"{path} can't be written ({error}); make room, or choose another path") from error


def _readable(tasks: Iterable[Task], path: Path, form: str) -> Iterator[Task]:
    """The tasks, each once it is sure to be read back as it is."""
    seen: set[str] = set()
    for n, task in enumerate(tasks):
        at = Place(path, field=f"task {n} ({task.id!r})")
        if task.id in seen:
            at.fail("a task with this id is there already", "give every task its own id")
        seen.add(task.id)
        if not task.id:
            at.fail("the task has no id", "give it one, such as content_id(task.title, task.context)")
        if form == "squad" and len(task.context) != 1:
            at.fail(f"the form squad holds one context part, this task has {len(task.context)}", "write jsonl instead")
        record_to_task(_record(task), at)
        yield task


def _record(task: Task) -> dict[str, Any]:
    context: str | list[str] = task.context[0] if len(task.context) == 1 else list(task.context)
    optional = {"edit": task.gold_edit, "family": task.family}
    probes = [
        {"question": probe.question, "answer": probe.answer}
        | ({"also": list(probe.also)} if probe.also else {})
        | ({"kind": probe.kind} if probe.kind else {})
        for probe in task.probes
    ]
    given = {name: value for name, value in optional.items() if value}
    return {"id": task.id, "title": task.title, "context": context, **given, "probes": probes}


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
