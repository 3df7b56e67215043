"""A run on disk: settings, journal, checkpoints, lock. Nothing is lost, nothing is done twice.

Work is planned in chunks with stable keys. `Run.once` returns a chunk's committed data or computes and commits it whole, so
a run that was killed is the same straight-line program run again: finished chunks come from the journal, the torn one is
redone. Everything a chunk depends on is decided by the settings and earlier chunks; wall clock is kept apart.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import tomli_w

from .config import MACHINE_FIELDS, PLANNING_FIELDS, REACHING_FIELDS, ModelSettings, Settings, differing_fields, merged, read_toml
from .disk import KEPT, disk_error, file_system, has_no_room, why_not
from .errors import DiskError, RunError

OnEvent = Callable[[str, dict[str, Any]], None]
# Settings -> the same with nothing left to this machine to decide, and why it was decided so, in words.
Resolve = Callable[[Settings], tuple[Settings, str]]


def _fields(row: str, *names: str) -> str:
    """Columns of a view. Not by SQLite's arrows: they came with 3.38, and systems have older ones."""
    return ", ".join(f"json_extract({row}, '$.{name}') as \"{name}\"" for name in names)


_EDIT = ("task_id", "index", "form", "context_sha256", "prompt", "text", "policy_hash", "seed")
_OUTCOME = ("edit_id", "seed", "status", "reason", "reward", "gain", "trained_tokens", "adapter_sha256")
_ANSWER = ("question", "gold", "text", "correct", "logprob", "kind", "problem")
_SCHEMA = f"""
create table if not exists chunks (
    seq integer primary key, key text not null unique, stage text not null, round integer, data text not null
);
create table if not exists timing (key text primary key, seconds real not null);
create table if not exists meta (name text primary key, value text not null);
create view if not exists edits as
    select c.round, {_fields("e.value", *_EDIT)}
    from chunks c, json_each(c.data, '$.edits') e where c.stage = 'propose';
create view if not exists outcomes as
    select c.round, c.stage, {_fields("o.value", *_OUTCOME)}
    from chunks c, json_each(c.data, '$.outcomes') o;
create view if not exists answers as
    select c.round, c.stage, {_fields("o.value", "edit_id")}, {_fields("a.value", *_ANSWER)}
    from chunks c, json_each(c.data, '$.outcomes') o, json_each(o.value, '$.answers') a;
create view if not exists decisions as
    select c.round, {_fields("c.data", "verdict", "reasons", "guards")}
    from chunks c where c.stage = 'settle';
"""


def ignore_event(kind: str, data: dict[str, Any]) -> None:
    """The listener of a run that nobody watches."""


class Run:
    """One run directory, locked while it is open. Use `open_run`."""

    def __init__(self, directory: Path, settings: Settings, on_event: OnEvent, lock: IO[str]) -> None:
        self.directory = directory
        self.settings = settings
        self.emit_to = on_event
        self._lock = lock
        self._file = directory / "journal.db"
        self._db = _opened(self._file)

    def emit(self, kind: str, **data: Any) -> None:
        """Tell whoever watches."""
        self.emit_to(kind, data)

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise disk_error(self._file, error) from error

    def done(self, key: str) -> dict[str, Any] | None:
        """A committed chunk's data, or None."""
        row = self._execute("select data from chunks where key = ?", key).fetchone()
        return None if row is None else json.loads(row[0])

    def once(self, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The chunk ``key``: from the journal, or computed and committed whole. Its stage is the key's second-last part, its
        round (if any) the number of the first part, such as ``round-2`` or ``look-2``.

        Files that belong to the chunk must be in place (`replace_directory`) when ``compute`` returns. NaN is refused: JSON
        has none, and a failure must say so in a status.
        """
        committed = self.done(key)
        if committed is not None:
            return committed
        began = time.perf_counter()
        data = json.dumps(compute(), allow_nan=False)
        parts = key.split("/")
        stage = parts[-2] if len(parts) > 1 and parts[-1].isdigit() else parts[-1]
        name, _, number = parts[0].partition("-")
        in_round = int(number) if name in ("round", "look") and number.isdigit() else None
        row, seconds = (key, stage, in_round, data), round(time.perf_counter() - began, 3)
        try:
            self._execute("begin immediate")
            self._execute("insert into chunks (key, stage, round, data) values (?, ?, ?, ?)", *row)
            self._execute("insert or replace into timing values (?, ?)", key, seconds)
            self._execute("commit")
        except DiskError:
            with suppress(sqlite3.Error):  # on a full disk SQLite has rolled back already
                self._db.execute("rollback")
            raise
        # What was just computed and what a resumed run reads must be the same object (tuples become lists, keys strings).
        result: dict[str, Any] = json.loads(data)
        return result

    @property
    def id(self) -> str:
        """A name that this run alone has, wherever its directory is: what is spent on it is counted by it."""
        self._execute("insert or ignore into meta values ('id', ?)", secrets.token_hex(8))
        return str(self._execute("select value from meta where name = 'id'").fetchone()[0])

    @property
    def why(self) -> str:
        """Why "auto" became what it is in this run's settings."""
        row = self._execute("select value from meta where name = 'why'").fetchone()
        return "" if row is None else str(row[0])

    @why.setter
    def why(self, text: str) -> None:
        self._execute("insert or replace into meta values ('why', ?)", text)

    def seconds(self) -> dict[str, float]:
        """Wall clock by chunk."""
        return dict(self._execute("select key, seconds from timing order by key").fetchall())

    def close(self) -> None:
        """Close the journal and let go of the lock."""
        self._db.close()
        self._lock.close()


@contextmanager
def open_run(
    directory: Path, settings: Settings, on_event: OnEvent = ignore_event, resolve: Resolve | None = None
) -> Iterator[Run]:
    """Open (or create) a run directory under a lock that dies with the process.

    A new run's settings are resolved, once; a run that goes on has what it resolved then, whatever the machine is like now.

    Raises `RunError` if another process has it or it holds other settings (naming the fields), `DiskError` if it can't be
    written.
    """
    with _locked(directory) as lock:
        run = Run(directory, settings, on_event, lock)
        try:
            _settle(run, resolve)
            yield run
        except OSError as error:
            if isinstance(error, DiskError) or error.errno is None:
                raise
            if has_no_room(why_not(directory, error)):
                raise disk_error(directory, error) from error
            raise DiskError(f"{error.filename or directory}: {error.strerror}; {KEPT}") from error
        finally:
            run.close()


@contextmanager
def _locked(directory: Path) -> Iterator[IO[str]]:
    """The directory, made if it is missing, under a lock that dies with the process; raises as `open_run`."""
    try:
        import fcntl
    except ImportError:
        raise RunError("a run needs file locks (fcntl), which this system does not have; on Windows use WSL") from None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise disk_error(directory, error, "choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                raise RunError(f"{directory}: another process is running it; wait for it, or choose another --out") from None
            raise DiskError(
                f"{directory}: {file_system(directory)} has no file locks ({error.strerror}), without which two processes "
                "could write one run; choose an --out on another disk"
            ) from None
        yield lock


def _opened(file: Path) -> sqlite3.Connection:
    """The journal, made if it is missing.

    Raises:
        DiskError: the disk is full, or its file system can't lock files.
        RunError: it is there, and is no journal.
    """
    try:
        try:
            return _connected(file, ("pragma journal_mode = wal",))
        except sqlite3.OperationalError:
            # The file system has no shared memory for a write-ahead log, as network disks have none, or the disk is full: then
            # a rollback journal fails as well. Exclusive, as without that memory a log of before can only be taken in alone.
            return _connected(
                file, ("pragma locking_mode = exclusive", "pragma journal_mode = delete", "pragma locking_mode = normal")
            )
    except sqlite3.Error as error:
        if "not a database" in str(error) or "malformed" in str(error):
            raise RunError(f"{file}: {error}; move it away to start the run from the beginning") from None
        raise disk_error(file, error, "choose an --out on another disk") from error


def _connected(file: Path, modes: tuple[str, ...]) -> sqlite3.Connection:
    """A connection with these modes and the journal's tables and views; the file's lock, if it had one, is let go of."""
    db = sqlite3.connect(file, isolation_level=None)
    try:
        for statement in (*modes, "pragma synchronous = full"):
            db.execute(statement)
        db.executescript(_SCHEMA)
        db.execute("select count(*) from chunks").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db


def _settle(run: Run, resolve: Resolve | None) -> None:
    """Resolve and write the settings of a new run; take those of an old one, and refuse a directory that holds others."""
    file = run.directory / "config.toml"
    if not file.exists():
        if resolve is not None:
            run.settings, run.why = resolve(run.settings)
        write_atomically(file, tomli_w.dumps(run.settings.fields()))
        return
    try:
        theirs = read_toml(file)
        # A setting that came with a later version has its default.
        theirs = merged(Settings.model_validate(theirs).fields(), theirs)
    except ValueError:
        raise RunError(
            f"{file}: damaged, or of another version; move the directory away to start the run from the beginning"
        ) from None
    run.settings = _as_planned(run.settings, theirs)
    may_differ = {f"reward.judge.{name}" for name in REACHING_FIELDS}
    fields = [f for f in differing_fields(theirs, run.settings.fields()) if f not in may_differ]
    if fields:
        raise RunError(f"{run.directory}: holds a run of other settings ({', '.join(fields)}); choose another --out")


def _as_planned(settings: Settings, theirs: dict[str, Any]) -> Settings:
    """The settings with what an old run (``theirs``) planned with, also where another memory size is asked for."""
    planned = {}
    for name in ("model", "learner"):
        model: ModelSettings | None = getattr(settings, name)
        had = theirs.get(name, {})
        if model is not None and isinstance(had, dict):
            taken = [field for field in MACHINE_FIELDS if getattr(model, field) == "auto" or field in PLANNING_FIELDS]
            planned[name] = model.model_copy(update={field: had.get(field, "auto") for field in taken})
    return settings.model_copy(update=planned)


def write_atomically(file: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never half of one; DiskError where that fails."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        raise disk_error(file, error, "choose another path") from None
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def replace_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fill a directory beside ``directory`` and put it in its place, so that it is whole or absent.

    It is on the disk before it has its name: the journal's next chunk may speak of it, and outlive a power cut.
    """
    fresh = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        fill(fresh)
        for path in (*fresh.rglob("*"), fresh):
            _to_disk(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)  # half of it would keep a full disk full
        raise
    shutil.rmtree(directory, ignore_errors=True)
    fresh.rename(directory)
    _to_disk(directory.parent)


def _to_disk(path: Path) -> None:
    """A file, or a directory's list of names, is on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
