"""Where a run's tasks come from: the protocol of all sources, and what a user's file and folder have in common."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...config import Settings, TaskSettings, sub_seed
from ...errors import SettingsError
from ...plugins import find
from ...types import Probe, Task


class TaskSource(Protocol):
    """Train, development and evaluation tasks; no task is in two of them.

    A source is made from the section ``[tasks]`` and the run's seed: ``Kind(settings, seed)``; its own settings, if it has any,
    are the pydantic model ``Settings``. With ``asks_for_probes = True`` its tasks bring no probes, and the base writes them. With
    a method ``sha256s() -> dict[str, str]``, hashes of its tasks by file, a run refuses to go on with other tasks of any file;
    without it, with other held-out tasks. With an attribute ``notes: tuple[str, ...]``, a run says its sentences, such as what
    was left out, as warnings and in its summary.
    """

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


def texts_digest(task: Task) -> bytes:
    """A hash of everything that a task says: context, probes with their answers, title, gold edit."""
    probes = [(probe.question, probe.answer, probe.kind, probe.also) for probe in task.probes]
    said = json.dumps([task.id, task.title, task.context, probes, task.gold_edit, task.family])
    return hashlib.sha256(said.encode()).digest()[:16]


class StoredSource:
    """The tasks of a user's file or folder, all in memory: a file that changes while a run uses it changes nothing.

    Documents are split whole, by a hash of their names (tasks of a file by a hash of their passage): test, then
    ladder-development, then development, the rest training.
    """

    def __init__(
        self,
        settings: TaskSettings,
        seed: int,
        files: Mapping[str, Sequence[Task]],
        documents: Mapping[str, Sequence[Task]],
        notes: Sequence[str] = (),
    ) -> None:
        """``files``: the tasks by the file that holds them. ``documents``: the same tasks by what is split whole (a document's
        name, or a passage's text).
        """
        self.settings, self._files, self.notes = settings, files, tuple(notes)
        names = iter(sorted(documents, key=lambda name: hashlib.sha256(name.encode()).hexdigest()))

        def take(n: int) -> list[Task]:
            """The first ``n`` tasks of the next documents; what is left of the last one is not used."""
            tasks: list[Task] = []
            while len(tasks) < n and (name := next(names, None)) is not None:
                tasks.extend(documents[name])
            return tasks[:n]

        self._train: list[Task] = []
        self._evaluation = take(settings.evaluation)
        if settings.split == "all":  # nothing is trained; what is left over serves as anchors for KL
            self._dev = take(settings.dev)
            if len(self._evaluation) < settings.evaluation:
                raise SettingsError(
                    f"{settings.source}: {len(self._evaluation)} task(s), but {settings.evaluation} are to be tested; "
                    "lower that number"
                )
            return
        ladder = take(settings.evaluation)
        self._evaluation = self._evaluation if settings.split == "test" else ladder
        self._dev = take(settings.dev)
        self._train = [task for name in names for task in documents[name]]
        if not self._train:
            n, n_documents = sum(map(len, documents.values())), len(documents)
            whole = f" in {n_documents} document(s), none of which is divided" if n_documents < n else ""
            raise SettingsError(
                f"{settings.source}: {n} task(s){whole}, but {settings.evaluation} for test, as many for a ladder on "
                f"development, {settings.dev} for development and at least 1 for training are needed; "
                "lower tasks.evaluation and tasks.dev, or bring more"
            )
        random.Random(sub_seed(seed, "tasks")).shuffle(self._train)

    def sha256s(self) -> dict[str, str]:
        """Hashes of all tasks that were read, in their order, by file."""
        return {file: hashlib.sha256(b"".join(map(texts_digest, tasks))).hexdigest() for file, tasks in self._files.items()}

    def draw(self, round: int) -> list[Task]:
        """The next ``per_round`` training tasks, from the start again when all were drawn."""
        first, n = (round - 1) * self.settings.per_round, len(self._train)
        return [self._train[(first + i) % n] for i in range(min(self.settings.per_round, n))]

    def dev(self) -> list[Task]:
        """Development tasks, the same in every round."""
        return list(self._dev)

    def evaluation(self) -> list[Task]:
        """The ladder's held-out tasks."""
        return list(self._evaluation)

    def known(self, n: int) -> list[Probe]:
        """Files say nothing about what a model knows by heart."""
        return []


def open_source(settings: Settings) -> TaskSource:
    """The task source that these settings ask for: a plug-in's name, a file or a folder.

    Raises:
        SettingsError: a protocol asks for more passages than are held out.
    """
    tasks, protocol = settings.tasks, settings.protocol
    if tasks.is_plugged and protocol.name != "single":
        # It has as many as are asked for, and none of them in two splits.
        tasks = tasks.model_copy(update={"evaluation": protocol.n_tasks})
    elif protocol.name != "single" and protocol.n_tasks > tasks.evaluation:
        raise SettingsError(
            f"{protocol.name} takes protocol.passages x protocol.groups = {protocol.n_tasks} passages, and tasks.evaluation "
            f"holds out {tasks.evaluation} of {tasks.source}; raise that (for the run that trains a policy, too)"
        )
    name = tasks.source if tasks.is_plugged else "folder" if Path(tasks.source).is_dir() else "file"
    source: TaskSource = find("tasks", name)(tasks, settings.seed)
    return source
