"""A folder of documents as a source."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ...config import Section, TaskSettings
from ...types import Task
from ..documents import LeftOut, read_documents
from .base import StoredSource


class FolderSettings(Section):
    """How a folder of documents is read: the table ``[tasks.folder]``."""

    skip_bad_files: bool = Field(
        False,
        description="leave out files that can't be read, or are no UTF-8 text, and name them in a warning; otherwise such a "
        "file stops the run",
    )


class Folder(StoredSource):
    """A folder of text and Markdown files, cut into passages (`read_documents`); the base writes the probes."""

    Settings = FolderSettings
    asks_for_probes = True  # a document brings no questions

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        folder, files, documents = Path(settings.source), dict[str, list[Task]](), dict[str, list[Task]]()
        skip, left_out = settings.own("folder", FolderSettings).skip_bad_files, LeftOut()
        for place, task in read_documents(folder, settings.passage_chars, left_out, skip_bad_files=skip):
            for by_name, name in ((files, place.path), (documents, place.path.relative_to(folder))):
                by_name.setdefault(str(name), []).append(task)
        super().__init__(settings, seed, files, documents)
        if told := left_out.told():
            self.notes = (f"{folder}: the passages leave out {', '.join(told)}.",)
