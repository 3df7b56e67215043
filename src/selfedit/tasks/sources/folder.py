"""A folder of documents as a source."""

from __future__ import annotations

from pathlib import Path

from ...config import TaskSettings
from ...types import Task
from ..documents import read_documents
from .base import StoredSource


class Folder(StoredSource):
    """A folder of text and Markdown files, cut into passages (`read_documents`); the base writes the probes."""

    asks_for_probes = True  # a document brings no questions

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        folder, files, documents = Path(settings.source), dict[str, list[Task]](), dict[str, list[Task]]()
        for place, task in read_documents(folder, settings.passage_chars):
            for by_name, name in ((files, place.path), (documents, place.path.relative_to(folder))):
                by_name.setdefault(str(name), []).append(task)
        super().__init__(settings, seed, files, documents)
