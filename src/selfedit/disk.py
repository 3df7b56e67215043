"""What a disk's errors mean in words: no space, no right to write, no locks. What was committed is never lost by them."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskError

KEPT = "what was committed is kept; run the same command again to continue"
_QUOTA = getattr(errno, "EDQUOT", None)  # not on every system
_NO_ROOM = (errno.ENOSPC, _QUOTA, errno.EFBIG)
_PROBE = b"\0" * (1 << 18)  # more than SQLite needs to open a journal
_FILE_SYSTEMS = Path("/etc/mtab")


def disk_error(path: Path, error: Exception, instead: str = "") -> DiskError:
    """The error to raise where ``error`` (of the system, of SQLite or of safetensors) came from writing at ``path``.

    ``instead``: what else the user can do.
    """
    why = why_not(path, error)
    ways = ", or ".join(filter(None, ("make room there" if has_no_room(why) else "", instead)))
    return DiskError("; ".join(filter(None, (f"{path}: can't be written: {why}", ways, KEPT))))


@contextmanager
def os_errors_from_safetensors(path: Path) -> Iterator[None]:
    """Raise what safetensors says of a disk that can't be written as the OSError that it was."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = _errno(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def why_not(path: Path, error: Exception) -> str:
    """Why ``path`` could not be written, in words. SQLite's own words hide a full disk, so a few KiB are written beside it."""
    number = _errno(error)
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL" or "disk is full" in str(error):
            return _words(errno.ENOSPC)
        if name in ("SQLITE_PROTOCOL", "SQLITE_BUSY") or "locking protocol" in str(error):
            return f"SQLite can't lock the file on {file_system(path)} ({error})"
        found = _probed(path)
        number = found.errno if found else errno.EFBIG if _limits_files() and "I/O" in str(error) else None
    return _words(number) if number else " ".join(str(error).split())


def has_no_room(why: str) -> bool:
    """Whether the reason is one that more space, or a higher limit, takes away."""
    return any(why == _words(number) for number in _NO_ROOM if number)


def _words(number: int) -> str:
    words = {
        errno.ENOSPC: "the disk is full",
        _QUOTA: "your quota on this disk is used up",
        errno.EFBIG: "no file may become that large here (a limit of this process, ulimit -f, or of the disk)",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "you may not write there",
        errno.EEXIST: "a file of that name is in the way",
        errno.ENOTDIR: "a part of this path is a file, not a folder",
    }
    return words.get(number) or os.strerror(number)


def _errno(error: Exception) -> int | None:
    """The system's number of an error; safetensors has it in its text alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _probed(path: Path) -> OSError | None:
    """What the system says to a file of some size beside ``path`` (or in it, if it is a directory)."""
    try:
        with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent) as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _limits_files() -> bool:
    """Whether this process may write files of some size only."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


def file_system(path: Path) -> str:
    """The file system that a path is on, for a message: ``the nfs4 file system at /home``."""
    try:
        at = str(path.resolve())
        rows = [line.split() for line in _FILE_SYSTEMS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "this file system"
    # The system writes blanks in a name as \\040.
    known = [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) > 2]
    around = [(where, kind) for where, kind in known if at == where or at.startswith(f"{where.rstrip('/')}/")]
    if not around:
        return "this file system"
    where, kind = max(reversed(around), key=lambda row: len(row[0]))  # of two at one place the later one counts
    return f"the {kind} file system at {where}"
