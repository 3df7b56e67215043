"""Where models lie that are used by a name: one folder per model in the user's cache, each with a record of what it is.

A model appears there whole or not at all: it is made in a hidden folder beside its place, and renamed when it is complete.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import DiskError, ModelError, SettingsError
from .catalogue import MODELS

# Called with a sentence for the user (or an empty one), and with how much is done of how much.
Tell = Callable[[str, int, int], None]
RECORD = "selfedit.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Entry:
    """What the record of a model says. ``directory``: where it lies, if not in its folder here. ``files``: sizes in bytes."""

    name: str
    source: str
    licence: str = ""
    directory: str = ""
    files: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The model's directory in the Hugging Face format."""
        return Path(self.directory) if self.directory else folder() / self.name

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(self.files.values())

    def problem(self) -> str:
        """Why the model can't be used; empty if it can."""
        if not self.path.is_dir():
            return f"{self.path} is not there any more"
        for name, size in self.files.items():
            file = self.path / name
            if not file.is_file():
                return f"{file} is missing"
            if file.stat().st_size != size:
                return f"{file} has {file.stat().st_size} bytes in place of {size}"
        return ""


def folder() -> Path:
    """The folder of models: in ``$SELFEDIT_CACHE``, else in ``$XDG_CACHE_HOME/selfedit``, else in ``~/.cache/selfedit``.

    Raises:
        SettingsError: none of them is known.
    """
    own, shared = os.environ.get("SELFEDIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE")
    if own:
        return Path(own).expanduser() / "models"
    if shared and Path(shared).is_absolute():  # the specification says to ignore relative ones
        return Path(shared) / "selfedit" / "models"
    if not home:
        raise SettingsError("there is no place for models: HOME is not set; set SELFEDIT_CACHE to a folder")
    return Path(home) / ".cache" / "selfedit" / "models"


def check_name(name: str) -> str:
    """The name, if a model can have it.

    Raises:
        SettingsError: it can't, or selfedit uses it for another one.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is no name for a model: use lower-case letters, digits, '.', '-' and '_'")
    if name == "embedded" or name in MODELS:
        raise SettingsError(f"the name {name} is taken by a model of selfedit's own; choose another one with --name")
    return name


def find(name: str) -> Entry | None:
    """The model of this name; None where there is none, and where no folder can be named."""
    if not _NAME.fullmatch(name):
        return None
    try:
        return read(folder() / name)
    except SettingsError:
        return None


def made(name: str) -> Entry:
    """The model that was just made.

    Raises:
        ModelError: it is gone already.
    """
    entry = find(name)
    if entry is None:
        raise ModelError(f"{folder() / name} was removed meanwhile; run the same command again")
    return entry


def read(directory: Path) -> Entry | None:
    """The record in this folder, or None."""
    try:
        return Entry(**json.loads((directory / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def entries() -> list[Entry]:
    """All models that are there, by their names."""
    try:
        found = sorted(folder().iterdir())
    except (OSError, SettingsError):
        return []
    return [entry for path in found if not path.name.startswith(".") and (entry := read(path))]


def resolve(name: str) -> str | None:
    """The directory of the model of this name; None where the name is no model's, so that it may be a hub id.

    Raises:
        ModelError: it is in the catalogue and was not fetched yet, or it is incomplete.
    """
    entry = find(name)
    if entry is None:
        if name in MODELS:
            raise ModelError(f"the model {name} is not on this machine yet; fetch it: selfedit model get {name}")
        return None
    if problem := entry.problem():
        again = f"selfedit model get {name}" if name in MODELS else f"selfedit model import {entry.source}"
        raise ModelError(f"the model {name} is incomplete: {problem}; make it again: {again}")
    return str(entry.path)


@contextmanager
def placed(name: str) -> Iterator[Path]:
    """An empty folder to make a model in; left without an error, it takes the model's place, with its record.

    Raises:
        SettingsError: another process makes the same model now.
        DiskError: the folder of models can't be written.
    """
    from filelock import FileLock, Timeout

    place = folder() / name
    work = place.parent / f".{name}.part"
    with _disk(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.parent / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SettingsError(f"another process is making the model {name}; wait until it is done") from None
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            yield work
            shutil.rmtree(place, ignore_errors=True)
            work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.release()


def record(directory: Path, entry: Entry) -> None:
    """Write the entry's record, with the sizes of all files of ``directory`` where the model lies there."""
    sizes = {} if entry.directory else {p.name: p.stat().st_size for p in sorted(directory.iterdir()) if p.is_file()}
    entry = Entry(**{**asdict(entry), "files": sizes})
    (directory / RECORD).write_text(json.dumps(asdict(entry), indent=2) + "\n", encoding="utf-8")


def check_space(needed: int) -> None:
    """Refuse what does not fit on the disk of the folder of models.

    Raises:
        DiskError: fewer than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(folder()).free
    if free < needed:
        raise DiskError(
            f"{folder()}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; make room, or set SELFEDIT_CACHE "
            "to a folder on a larger disk"
        )


@contextmanager
def _disk(where: Path) -> Iterator[None]:
    """What the disk refuses, said in one sentence."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskError):
            raise
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise DiskError(
            f"{where} can't be written ({why}); make room or give yourself the right to write there, or set SELFEDIT_CACHE to "
            "another folder"
        ) from error
