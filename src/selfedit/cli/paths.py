"""Paths of the command line: ``~`` in them, and whether what is to be written can be, before hours of work."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ..errors import DiskError, SettingsError


def with_home(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A verb whose paths have the home directory in place of ``~``: shells leave it alone in ``--out=~/runs`` and in quotes."""

    @wraps(verb)
    def called(*args: Any, **options: Any) -> Any:
        return verb(*map(_at_home, args), **{name: _at_home(value) for name, value in options.items()})

    return called


def _at_home(value: Any) -> Any:
    if not isinstance(value, Path) or not str(value).startswith("~"):
        return value
    try:
        return value.expanduser()
    except RuntimeError:
        raise SettingsError(f"{value}: there is no home directory for it; write the path in full") from None


def check_file(file: Path | None, option: str) -> None:
    """Whether a file that ``option`` names can be written later; None can.

    Raises:
        DiskError: its folder is missing or can't be written, or it is a folder itself.
    """
    if file is None:
        return
    problem = ""
    if file.is_dir():
        problem = "it is a folder; give a file's name"
    elif not file.parent.exists():
        problem = f"there is no folder {file.parent}; make it first, or choose another path"
    elif not file.parent.is_dir():
        problem = f"{file.parent} is a file; choose another path"
    elif not os.access(file.parent, os.W_OK | os.X_OK):
        problem = f"you may not write in the folder {file.parent}; choose another path"
    if problem:
        raise DiskError(f"{option}: {file}: can't be written: {problem}")


def check_directory(directory: Path) -> None:
    """Whether a run can be written in ``directory``, which is made later if it is missing.

    Raises:
        DiskError: a file is in the way, or the folder that it would be in can't be written.
    """
    there = next(path for path in (directory, *directory.absolute().parents) if os.path.lexists(path))
    problem = ""
    if not there.is_dir():
        problem = f"{there} is a file" if there.exists() else f"{there} is a link to nothing"
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f"you may not write in {there}"
    if problem:
        raise DiskError(f"{directory}: can't be written: {problem}; choose another --out")
