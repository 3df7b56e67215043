"""A tasks file as a source."""

from __future__ import annotations

from pathlib import Path

from ...config import TaskSettings
from ..files import read_tasks
from .base import StoredSource


class File(StoredSource):
    """A file of tasks: SQuAD v1 JSON, flat JSON or JSONL (`read_tasks`)."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        tasks = list(read_tasks(settings.source))
        super().__init__(settings, seed, {str(Path(settings.source)): tasks}, {task.id: [task] for task in tasks})
