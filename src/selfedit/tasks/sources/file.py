"""A tasks file as a source."""

from __future__ import annotations

from pathlib import Path

from ...characters import passage_key
from ...config import TaskSettings
from ..files import read_file
from .base import StoredSource


class File(StoredSource):
    """A file of tasks (`files.read_file`); which split a task belongs to is decided by its passage's text."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        read = read_file(settings.source)
        by_passage = {passage_key(task.text): [task] for task in read.tasks}
        super().__init__(settings, seed, {str(Path(settings.source)): read.tasks}, by_passage, read.notes)
