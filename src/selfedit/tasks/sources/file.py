"""A tasks file as a source."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...characters import passage_key
from ...config import TaskSettings
from ...types import Task
from ..files import read_file
from .base import StoredSource


class File(StoredSource):
    """A file of tasks (`files.read_file`). Its passage's text decides which split a task belongs to, or its title does
    (``tasks.split_by``).
    """

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        read = read_file(settings.source)
        together: dict[str, list[Task]] = defaultdict(list)
        for task in read.tasks:  # one without a title stands alone
            by_title = settings.split_by == "title" and task.title.strip()
            together[passage_key(task.title if by_title else task.text)].append(task)
        super().__init__(settings, seed, {str(Path(settings.source)): read.tasks}, together, read.notes)
