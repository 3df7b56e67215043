"""Tasks in files: SQuAD's JSON, flat JSON, JSONL and Parquet, also compressed; the form is recognised from the content.

=========  =====================================================================================================
SQuAD      ``{"data": [{"title", "paragraphs": [{"context", "qas": [{"question", "answers": [{"text"}]}]}]}]}``,
           version 1.1 or 2.0
tasks      ``{"id"?, "title"?, "context": text | [text], "edit"?, "family"?, "probes" | "questions" | "qas":
           [{"question", "answer" | "answers", "also"?, "kind"?}]}``
rows       ``{"title"?, "context", "question", "answers": {"text": [text], "answer_start"}}``: one question per row, as data
           sets on the Hugging Face hub have it, or with the fields of a question of a task
=========  =====================================================================================================

Tasks and rows stand in a list (``[...]`` or ``{"data": [...]}``), one per line (JSONL) or one per row of a Parquet file. Several
answers: the first is ``Probe.answer``, the other distinct ones are ``Probe.also``. An answer, an id or a title may be a number.
Unknown fields are ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from itertools import chain, groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..errors import SettingsError, TaskFileError
from ..types import Probe, Task
from .formats import PARQUET
from .gathering import BLANK, UNANSWERED, Gathering, Remarks, TaskFile
from .places import Form, Place, Text, checked, json_lines, opened, parsed, read_rest


def _in_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _said(value: Any) -> Any:
    """A number as text (a whole one without a decimal point, as tables with gaps have it), and NaN as nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) else repr(value)


def _answers(value: Any) -> Any:
    """All texts of an answer or of several: a text, a number, ``{"text": ...}``, ``{"value", "aliases"}``, or a list of them."""
    value = _said(value)
    if value is None:
        return []
    if isinstance(value, dict) and "text" in value:
        return _answers(value["text"])
    if isinstance(value, dict) and "value" in value:
        return [*_answers(value["value"]), *_answers(value.get("aliases"))]
    if isinstance(value, list):
        each = [_answers(item) for item in value]
        return [answer for answers in each for answer in answers]
    return [value]


_ROWS_AT_ONCE = 1024  # of a Parquet file: they are in memory together
Name = Annotated[str | None, BeforeValidator(_said)]
Answers = Annotated[list[str], BeforeValidator(_answers)]


class _Question(Form):
    question: Text
    answer: Answers = Field([])
    answers: Answers = Field([])
    also: Answers = Field([])
    kind: str | None = None
    is_impossible: bool | int | None = None

    @model_validator(mode="after")
    def _says_its_answer(self) -> Self:
        if not self.model_fields_set & {"answer", "answers", "is_impossible"}:
            raise PydanticCustomError(
                "no_answer",
                "the question has no answer; give answer or answers (an empty list says that the passage has none)",
            )
        return self

    def probes(self, at: Place, remarks: Remarks) -> list[Probe]:
        """The question as a probe; none, with a remark, where it has no answer."""
        given = [*dict.fromkeys([*self.answer, *self.answers]), *self.also]
        golds = [gold for gold in given if gold.strip()]
        if self.is_impossible or not golds:
            remarks.add(UNANSWERED, at)
            return []
        if len(golds) < len(given):
            remarks.add(BLANK, at)
        return [Probe(self.question, golds[0], self.kind or "", tuple(golds[1:]))]


class _Passage(Form):
    """What is said of a passage, once or with each of its questions."""

    id: Name = None
    title: Name = None
    context: Annotated[list[Text], Field(min_length=1), BeforeValidator(_in_list)]
    edit: str | None = None
    family: str | None = None

    def task(self, id: str | None, title: str | None, probes: Iterable[Probe]) -> Task:
        """The passage as a task with these probes; without ``id`` it gets one from its content."""
        context, title = tuple(self.context), title or ""
        return Task(id or content_id(title, context), title, context, tuple(probes), self.edit or "", self.family or "")


class _Record(_Passage):
    probes: list[_Question] = Field(validation_alias=AliasChoices("probes", "questions", "qas"))


class _Paragraph(_Passage):
    probes: list[_Question] = Field(validation_alias="qas")


class _Article(Form):
    title: Name = None
    paragraphs: list[_Paragraph]


class _Document(Form):
    data: list[Any] = Field(min_length=1)


def read_tasks(path: str | Path) -> Iterator[Task]:
    """The tasks of a file, in its order; see `read_file`."""
    yield from read_file(path).tasks


def read_file(path: str | Path) -> TaskFile:
    """The tasks of a file, and what was left out of it; the form is recognised from the content, not from the name.

    JSONL and Parquet are read row by row; other JSON is parsed whole. A line or document of more than 256 MiB is refused. gzip,
    bzip2 and xz are decompressed. One passage is one task with the questions of all its rows, whatever their ids and titles:
    white space, case and characters that nobody sees aside. A task without an id gets one from its content (title, and hash of
    title and context), the same on every reading; so does a passage whose questions are rows, as the rows' ids are theirs.

    Raises:
        TaskFileError: the file can't be opened, is empty, truncated, of another format or not UTF-8; a field is missing, of the
            wrong type or empty; two passages have one id; no question has an answer. The message names file, line, field.
        SettingsError: a Parquet file, and pyarrow is not installed.
    """
    at, remarks = Place(Path(path)), Remarks()
    gathering = Gathering(remarks)
    with opened(at.path, parquet=True) as stream:
        for place, value in _values(stream, at):
            _take(value, place, gathering, remarks)
    tasks = gathering.tasks()
    notes = remarks.sentences()
    if not tasks:
        at.fail("no question has an answer", "; ".join(notes))
    return TaskFile(tasks, notes)


def _take(value: Any, at: Place, gathering: Gathering, remarks: Remarks) -> None:
    """Gather what one value of a file says: an article of SQuAD's, one question, or a passage with its questions."""
    names = value.keys() if isinstance(value, dict) else ()
    if "paragraphs" in names:
        article = checked(_Article, value, at)
        for i, paragraph in enumerate(article.paragraphs):
            place = at.of("paragraphs", i)
            probes = [probe for question in paragraph.probes for probe in question.probes(place, remarks)]
            gathering.add(paragraph.task(paragraph.id, article.title, probes), place, one_question=False)
    elif "question" in names and not {"probes", "questions", "qas"} & set(names):
        question, passage = checked(_Question, value, at), checked(_Passage, value, at)
        gathering.add(passage.task(None, passage.title, question.probes(at, remarks)), at, one_question=True)
    else:
        record = checked(_Record, value, at)
        probes = [probe for question in record.probes for probe in question.probes(at, remarks)]
        gathering.add(record.task(record.id, record.title, probes), at, one_question=False)


def _values(stream: BufferedReader, at: Place) -> Iterator[tuple[Place, Any]]:
    """Each item of a file's list, line or row, with its place."""
    if stream.peek(len(PARQUET)).startswith(PARQUET):
        yield from _parquet_rows(stream, at)
        return
    lines = json_lines(stream, at)
    start, head = next(lines, (at, b""))
    if not head:
        at.fail("the file is empty", "write one task per line (JSONL), or SQuAD JSON")
    if _is_jsonl(head, start):
        for place, line in chain([(start, head)], lines):
            yield place, parsed(line, place)
        return
    value = parsed(b"\n" * ((start.line or 1) - 1) + head + read_rest(stream, at), at)
    if isinstance(value, dict) and "data" in value and "context" not in value:
        yield from ((at.of("data", i), item) for i, item in enumerate(checked(_Document, value, at).data))
    elif value == []:
        at.fail("the list holds no task", "give at least one")
    elif isinstance(value, list):
        yield from ((at.of(i), item) for i, item in enumerate(value))
    else:
        yield at, value


def _is_jsonl(head: bytes, at: Place) -> bool:
    """Whether a file's first line is a whole task (or a mistake in place of one), rather than the beginning of a document."""
    try:
        first = parsed(head, at)
    except TaskFileError:
        return False  # perhaps an indented document; if not, parsing the whole says where it breaks
    return not isinstance(first, list) and not (isinstance(first, dict) and "data" in first and "context" not in first)


def _parquet_rows(stream: BufferedReader, at: Place) -> Iterator[tuple[Place, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SettingsError(f"{at.path} is a Parquet file: pip install 'selfedit[parquet]', or convert it to JSONL") from None
    try:
        with ParquetFile(stream) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE))
            yield from ((at.of(n), row) for n, row in enumerate(chain.from_iterable(batches)))
    except (ArrowException, OSError) as error:
        at.fail(f"the Parquet file can't be read ({error})", "it may be damaged or truncated: fetch or write it again")


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
