"""Where a run's tasks come from: one protocol, the user's file or folder as sources of it."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..config import TaskSettings, sub_seed
from ..errors import SettingsError
from ..types import Probe, Task
from .documents import read_document, read_documents
from .files import CHANGED, placed_tasks, read_tasks, tasks_at
from .places import Place


class TaskSource(Protocol):
    """Train, development and evaluation tasks; no task is in two of them."""

    def draw(self, round: int) -> list[Task]:
        """The training tasks of a round (from 1)."""
        ...

    def dev(self) -> list[Task]:
        """Development tasks."""
        ...

    def evaluation(self) -> list[Task]:
        """The ladder's held-out tasks."""
        ...

    def known(self, n: int) -> list[Probe]:
        """Questions that the base answers closed-book (may be none)."""
        ...


class StoredSource(ABC):
    """Tasks that lie on the disk: their ids are in memory, what a draw asks for is read when it is asked for.

    Documents are split whole, by a hash of their names: test, then ladder-development, then development, the rest training.
    """

    def __init__(self, settings: TaskSettings, seed: int, documents: Mapping[str, Sequence[str]]) -> None:
        """``documents``: the tasks' ids by document. Where every task is its own, its id is the name."""
        self.settings = settings
        self.path = Path(settings.source)
        if settings.split == "all":  # nothing is trained; what is left over serves as anchors for KL
            self._train = []
            names = iter(sorted(documents, key=_hashed))
            self._evaluation, self._dev = (_taken(names, documents, n) for n in (settings.evaluation, settings.dev))
            if len(self._evaluation) < settings.evaluation:
                raise SettingsError(
                    f"{self.path}: {len(self._evaluation)} task(s), but {settings.evaluation} are to be tested; lower that number"
                )
            return
        names = iter(sorted(documents, key=_hashed))
        test, ladder, self._dev = (
            _taken(names, documents, n) for n in (settings.evaluation, settings.evaluation, settings.dev)
        )
        self._evaluation = test if settings.split == "test" else ladder
        self._train = [task_id for name in names for task_id in documents[name]]
        if not self._train:
            n, n_documents = sum(map(len, documents.values())), len(documents)
            whole = f" in {n_documents} document(s), none of which is divided" if n_documents < n else ""
            raise SettingsError(
                f"{self.path}: {n} task(s){whole}, but {settings.evaluation} for test, as many for a ladder on development, "
                f"{settings.dev} for development and at least 1 for training are needed; "
                "lower tasks.evaluation and tasks.dev, or bring more"
            )
        random.Random(sub_seed(seed, "tasks")).shuffle(self._train)

    @abstractmethod
    def _stored(self, wanted: Collection[str]) -> Iterator[Task]:
        """The tasks with these ids, in any order, others among them; TaskFileError where the files have changed."""

    def _read(self, ids: Sequence[str]) -> list[Task]:
        wanted = dict.fromkeys(ids)
        found = {task.id: task for task in self._stored(wanted.keys()) if task.id in wanted}
        if missing := next((task_id for task_id in wanted if task_id not in found), ""):
            Place(self.path).fail(f"the task {missing!r} is not there any more", CHANGED)
        return [found[task_id] for task_id in wanted]

    def draw(self, round: int) -> list[Task]:
        """The next ``per_round`` training tasks, from the start again when all were drawn."""
        first, n = (round - 1) * self.settings.per_round, len(self._train)
        return self._read([self._train[(first + i) % n] for i in range(min(self.settings.per_round, n))])

    def dev(self) -> list[Task]:
        """Development tasks, the same in every round."""
        return self._read(self._dev)

    def evaluation(self) -> list[Task]:
        """The ladder's held-out tasks."""
        return self._read(self._evaluation)

    def known(self, n: int) -> list[Probe]:
        """Files say nothing about what a model knows by heart."""
        return []


class FileSource(StoredSource):
    """Tasks of a file (`read_tasks`). Of JSONL the places of the lines are kept, so that a draw reads its tasks alone."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        self._places = {task.id: place for place, task in placed_tasks(settings.source)}
        super().__init__(settings, seed, {task_id: (task_id,) for task_id in self._places})

    def _stored(self, wanted: Collection[str]) -> Iterator[Task]:
        places = {task_id: self._places[task_id] for task_id in wanted}
        if all(place.offset is not None for place in places.values()):
            return tasks_at(self.path, places)
        return read_tasks(self.path)


class FolderSource(StoredSource):
    """Passages of a folder of text and Markdown files (`read_documents`), without probes; a draw reads the files it is of."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        folder, documents = Path(settings.source), dict[str, list[str]]()
        self._files: dict[str, Path] = {}
        for place, task in read_documents(folder, settings.passage_chars):
            self._files[task.id] = place.path
            documents.setdefault(str(place.path.relative_to(folder)), []).append(task.id)
        super().__init__(settings, seed, documents)

    def _stored(self, wanted: Collection[str]) -> Iterator[Task]:
        for path in dict.fromkeys(self._files[task_id] for task_id in wanted):
            for _, task in read_document(self.path, path, self.settings.passage_chars):
                yield task


def _taken(names: Iterator[str], documents: Mapping[str, Sequence[str]], n: int) -> list[str]:
    """The first ``n`` tasks of the next documents; what is left of the last one is not used."""
    ids: list[str] = []
    while len(ids) < n and (name := next(names, None)) is not None:
        ids.extend(documents[name])
    return ids[:n]


def _hashed(task_id: str) -> str:
    return hashlib.sha256(task_id.encode()).hexdigest()
