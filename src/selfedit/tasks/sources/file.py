"""A tasks file as a source."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ...config import TaskSettings
from ...types import Task
from ..files import placed_tasks, read_tasks, tasks_at
from ..places import Place
from .base import StoredSource, texts_digest


class File(StoredSource):
    """A file of tasks: SQuAD v1 JSON, flat JSON or JSONL (`read_tasks`).

    Of JSONL the places of the lines are kept, so that a draw reads its own tasks only.
    """

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        self._places: dict[str, Place] = {}
        digests: dict[str, bytes] = {}
        for place, task in placed_tasks(settings.source):
            self._places[task.id], digests[task.id] = place, texts_digest(task)
        super().__init__(settings, seed, {task_id: (task_id,) for task_id in self._places}, digests)

    def _file(self, task_id: str) -> Path:
        return self.path

    def _stored(self, wanted: Collection[str]) -> Iterator[Task]:
        places = {task_id: self._places[task_id] for task_id in wanted}
        if all(place.offset is not None for place in places.values()):
            return tasks_at(self.path, places)
        return read_tasks(self.path)
