"""A run on disk: settings, journal, checkpoints, lock. Nothing is lost, nothing is done twice.

Work is planned in chunks with stable keys. `Run.once` returns a chunk's committed data or computes and commits it whole, so
a run that was killed is the same straight-line program run again: finished chunks come from the journal, the torn one is
redone. Everything a chunk depends on is decided by the settings and earlier chunks; wall clock is kept apart.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import tomli_w

from .config import MACHINE_FIELDS, PLANNING_FIELDS, REACHING_FIELDS, ModelSettings, Settings, differing_fields, merged
from .errors import DiskError, RunError

OnEvent = Callable[[str, dict[str, Any]], None]
# Settings -> the same with nothing left to this machine to decide, and why it was decided so, in words.
Resolve = Callable[[Settings], tuple[Settings, str]]

_SCHEMA = """
create table if not exists chunks (
    seq integer primary key, key text not null unique, stage text not null, round integer, data text not null
);
create table if not exists timing (key text primary key, seconds real not null);
create table if not exists meta (name text primary key, value text not null);
create view if not exists edits as
    select c.round, e.value ->> 'task_id' as task_id, e.value ->> 'index' as "index", e.value ->> 'form' as form,
           e.value ->> 'context_sha256' as context_sha256, e.value ->> 'prompt' as prompt, e.value ->> 'text' as text,
           e.value ->> 'policy_hash' as policy_hash, e.value ->> 'seed' as seed
    from chunks c, json_each(c.data, '$.edits') e where c.stage = 'propose';
create view if not exists outcomes as
    select c.round, c.stage, o.value ->> 'edit_id' as edit_id, o.value ->> 'seed' as seed, o.value ->> 'status' as status,
           o.value ->> 'reason' as reason, o.value ->> 'reward' as reward, o.value ->> 'gain' as gain,
           o.value ->> 'trained_tokens' as trained_tokens, o.value ->> 'adapter_sha256' as adapter_sha256
    from chunks c, json_each(c.data, '$.outcomes') o;
create view if not exists answers as
    select c.round, c.stage, o.value ->> 'edit_id' as edit_id, a.value ->> 'question' as question,
           a.value ->> 'gold' as gold, a.value ->> 'text' as text, a.value ->> 'correct' as correct,
           a.value ->> 'logprob' as logprob, a.value ->> 'kind' as kind, a.value ->> 'problem' as problem
    from chunks c, json_each(c.data, '$.outcomes') o, json_each(o.value, '$.answers') a;
create view if not exists decisions as
    select c.round, c.data ->> 'verdict' as verdict, c.data ->> 'reasons' as reasons, c.data ->> 'guards' as guards
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
        self._db = sqlite3.connect(directory / "journal.db", isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        self._db.executescript(_SCHEMA)

    def emit(self, kind: str, **data: Any) -> None:
        """Tell whoever watches."""
        self.emit_to(kind, data)

    def done(self, key: str) -> dict[str, Any] | None:
        """A committed chunk's data, or None."""
        row = self._db.execute("select data from chunks where key = ?", (key,)).fetchone()
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
            with self._db:  # commits, or rolls back
                self._db.execute("begin immediate")
                self._db.execute("insert into chunks (key, stage, round, data) values (?, ?, ?, ?)", row)
                self._db.execute("insert or replace into timing values (?, ?)", (key, seconds))
        except sqlite3.OperationalError as error:
            raise DiskError(f"{self.directory}: {key} can't be committed ({error}); free some space and run again") from None
        # What was just computed and what a resumed run reads must be the same object (tuples become lists, keys strings).
        result: dict[str, Any] = json.loads(data)
        return result

    @property
    def id(self) -> str:
        """A name that this run alone has, wherever its directory is: what is spent on it is counted by it."""
        self._db.execute("insert or ignore into meta values ('id', ?)", (secrets.token_hex(8),))
        return str(self._db.execute("select value from meta where name = 'id'").fetchone()[0])

    @property
    def why(self) -> str:
        """Why "auto" became what it is in this run's settings."""
        row = self._db.execute("select value from meta where name = 'why'").fetchone()
        return "" if row is None else str(row[0])

    @why.setter
    def why(self, text: str) -> None:
        self._db.execute("insert or replace into meta values ('why', ?)", (text,))

    def seconds(self) -> dict[str, float]:
        """Wall clock by chunk."""
        return dict(self._db.execute("select key, seconds from timing order by key").fetchall())

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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise DiskError(f"{directory}: can't be written ({error.strerror}); choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{directory}: another process is running it; wait for it, or choose another --out") from None
        try:
            run = Run(directory, settings, on_event, lock)
        except sqlite3.Error as error:
            raise RunError(f"{directory}/journal.db: {error}; move it away to start the run from the beginning") from None
        try:
            _settle(run, resolve)
            yield run
        except OSError as error:
            if isinstance(error, DiskError) or error.errno is None:
                raise
            raise DiskError(
                f"{directory}: {error.strerror}; what was committed is kept; run the same command again to continue"
            ) from error
        finally:
            run.close()


def _settle(run: Run, resolve: Resolve | None) -> None:
    """Resolve and write the settings of a new run; take those of an old one, and refuse a directory that holds others."""
    file = run.directory / "config.toml"
    if not file.exists():
        if resolve is not None:
            run.settings, run.why = resolve(run.settings)
        write_atomically(file, tomli_w.dumps(run.settings.fields()))
        return
    try:
        theirs = tomllib.loads(file.read_text(encoding="utf-8"))
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
        raise DiskError(
            f"{file}: can't be written ({error.strerror}); make room, or choose another path; what was committed is kept"
        ) from None
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def replace_directory(directory: Path, fill: Callable[[Path], None]) -> None:
    """Fill a directory beside ``directory`` and put it in its place, so that it is whole or absent.

    It is on the disk before it has its name: the journal's next chunk may speak of it, and outlive a power cut.
    """
    fresh = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    fill(fresh)
    for path in (*fresh.rglob("*"), fresh):
        _to_disk(path)
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
