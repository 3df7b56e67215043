"""A folder of documents as a source."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ...config import TaskSettings
from ...types import Task
from ..documents import read_document, read_documents
from .base import StoredSource, texts_digest


class Folder(StoredSource):
    """A folder of text and Markdown files, cut into passages; the base writes the probes.

    A draw reads the files that it is about (`read_documents`).
    """

    asks_for_probes = True  # a document brings no questions

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        folder, documents = Path(settings.source), dict[str, list[str]]()
        self._files: dict[str, Path] = {}
        digests: dict[str, bytes] = {}
        for place, task in read_documents(folder, settings.passage_chars):
            self._files[task.id], digests[task.id] = place.path, texts_digest(task)
            documents.setdefault(str(place.path.relative_to(folder)), []).append(task.id)
        super().__init__(settings, seed, documents, digests)

    def _file(self, task_id: str) -> Path:
        return self._files[task_id]

    def _stored(self, wanted: Collection[str]) -> Iterator[Task]:
        for path in dict.fromkeys(self._files[task_id] for task_id in wanted):
            for _, task in read_document(self.path, path, self.settings.passage_chars):
                yield task
