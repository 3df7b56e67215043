"""The passages of our own that ship with the package, as a source."""

from __future__ import annotations

from pathlib import Path

from ...config import TaskSettings
from ..files import read_tasks
from .base import StoredSource

PASSAGES = Path(__file__).resolve().parents[2] / "assets" / "passages" / "passages.jsonl"


class Passages(StoredSource):
    """72 passages about invented things, with questions: no pretrained model can know the answers."""

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        tasks = list(read_tasks(PASSAGES))
        super().__init__(settings, seed, {PASSAGES.name: tasks}, {task.id: [task] for task in tasks})
