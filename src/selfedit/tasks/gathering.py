"""From rows to tasks: what is said of one passage is one task, and what can't be asked is left out and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from ..characters import passage_key
from ..types import Probe, Task
from .places import Place

UNANSWERED = "{} question(s) without an answer, such as SQuAD v2's unanswerable ones, are left out"
BLANK = "of {} question(s) an empty answer is left out; they have others"
UNASKED = "{} passage(s) without an answered question are left out"
AGAIN = "{} passage(s) come again, under another id or title or the same; each is one task, with all its questions"
TWICE = "{} question(s) come again with their passage; each is asked once, and the answers of all count as right"


class Remarks:
    """How often something was noticed in a file, and where first."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Place] = {}

    def add(self, text: str, place: Place) -> None:
        """Count one case of ``text``, one of this module's sentences."""
        self._counts[text] += 1
        self._first.setdefault(text, place)

    def sentences(self) -> list[str]:
        """One sentence for each kind of case: the file, how many, and where the first is."""
        return [f"{text.format(n)} (the first: {self._first[text]})" for text, n in self._counts.items()]


@dataclass
class _Gathered:
    """A passage's first row as a task and where it stands; all its probes, which of them asks what, and all its edits."""

    first: Task
    place: Place
    probes: list[Probe]
    asked: dict[str, int] = field(default_factory=dict)
    edits: list[str] = field(default_factory=list)

    def ask(self, probe: Probe) -> None:
        """Add a probe."""
        self.asked.setdefault(passage_key(probe.question), len(self.probes))
        self.probes.append(probe)

    def task(self) -> Task:
        """The whole task; edits that differ are lines of one edit."""
        edit = "\n".join(dict.fromkeys(filter(None, self.edits)))
        return replace(self.first, probes=tuple(self.probes), gold_edit=edit)


class Gathering:
    """Tasks in the order in which their passages are first met. One passage is one task, whatever its rows' ids and titles."""

    def __init__(self, remarks: Remarks) -> None:
        self._remarks = remarks
        self._by_passage: dict[str, _Gathered] = {}
        self._passages: dict[str, str] = {}  # by the task's id

    def add(self, task: Task, place: Place, one_question: bool) -> None:
        """Take a row's task. ``one_question``: rows of one question are expected to share a passage.

        Raises:
            TaskFileError: another passage has the task's id.
        """
        key = passage_key(task.text)
        found = self._by_passage.get(key)
        if found is None:
            if task.id in self._passages:
                taken = self._by_passage[self._passages[task.id]].place
                place.fail(f"the id {task.id!r} is there already, at {taken}, with another passage", "give each its own id")
            self._passages[task.id] = key
            found = self._by_passage[key] = _Gathered(task, place, [], edits=[task.gold_edit])
            for probe in task.probes:  # also one that asks twice: it is as the file has it
                found.ask(probe)
            return
        if not one_question:
            self._remarks.add(AGAIN, place)
        found.edits.append(task.gold_edit)
        found.first = replace(found.first, family=found.first.family or task.family)
        self._ask(found, task.probes, place)

    def _ask(self, found: _Gathered, probes: tuple[Probe, ...], place: Place) -> None:
        """Add a further row's questions; one that was asked before gets the answers of both."""
        for probe in probes:
            at = found.asked.get(passage_key(probe.question))
            if at is None:
                found.ask(probe)
                continue
            self._remarks.add(TWICE, place)
            before = found.probes[at]
            found.probes[at] = replace(before, also=tuple(dict.fromkeys([*before.golds, *probe.golds]))[1:])

    def tasks(self) -> list[Task]:
        """All tasks that have a probe; the others are counted among the remarks."""
        for gathered in self._by_passage.values():
            if not gathered.probes:
                self._remarks.add(UNASKED, gathered.place)
        return [gathered.task() for gathered in self._by_passage.values() if gathered.probes]


@dataclass(frozen=True)
class TaskFile:
    """A file's tasks, in its order, and in sentences what was left out of it and what was put together."""

    tasks: list[Task]
    notes: list[str]
