"""Where a run's tasks come from: one protocol, the user's file as one source of it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Protocol

from ..config import TaskSettings, sub_seed
from ..errors import SettingsError
from ..types import Probe, Task
from .files import read_tasks


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


class FileSource:
    """Tasks of a file, split by a hash of their ids: test, then ladder-development, then development, the rest training."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        self.settings = settings
        self.path = Path(settings.source)
        ids = sorted((task.id for task in read_tasks(self.path)), key=_hashed)
        held = 2 * settings.evaluation + settings.dev
        if len(ids) <= held:
            raise SettingsError(
                f"{self.path}: {len(ids)} task(s), but {settings.evaluation} for test, as many for a ladder on development, "
                f"{settings.dev} for development and at least 1 for training are needed; "
                "lower tasks.evaluation and tasks.dev, or bring more tasks"
            )
        n = settings.evaluation
        self._evaluation = ids[:n] if settings.split == "test" else ids[n : 2 * n]
        self._dev = ids[2 * n : held]
        self._train = ids[held:]
        random.Random(sub_seed(seed, "tasks")).shuffle(self._train)

    def _read(self, ids: list[str]) -> list[Task]:
        wanted = dict.fromkeys(ids)
        found = {task.id: task for task in read_tasks(self.path) if task.id in wanted}
        return [found[task_id] for task_id in wanted]

    def draw(self, round: int) -> list[Task]:
        """The next ``per_round`` training tasks, from the start again when the file is used up."""
        first, n = (round - 1) * self.settings.per_round, len(self._train)
        return self._read([self._train[(first + i) % n] for i in range(min(self.settings.per_round, n))])

    def dev(self) -> list[Task]:
        """Development tasks, the same in every round."""
        return self._read(self._dev)

    def evaluation(self) -> list[Task]:
        """The ladder's held-out tasks."""
        return self._read(self._evaluation)

    def known(self, n: int) -> list[Probe]:
        """A file says nothing about what a model knows by heart."""
        return []


def _hashed(task_id: str) -> str:
    return hashlib.sha256(task_id.encode()).hexdigest()
