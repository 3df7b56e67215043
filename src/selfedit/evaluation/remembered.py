"""The tasks that a run began with: it goes on with the same ones, or not at all."""

from __future__ import annotations

import hashlib
from typing import Any

from ..errors import RunError, SettingsError, TaskFileError
from ..run import Run
from ..tasks.sources.base import TaskSource, open_source, texts_digest


def source_of(run: Run) -> TaskSource:
    """The run's task source; refused where the run began with other tasks.

    Raises:
        RunError: the tasks are not those that the run began with; it names the files.
    """
    then, source = run.done("tasks"), run.settings.tasks.source
    try:
        found = open_source(run.settings)
    except (TaskFileError, SettingsError) as error:
        if then is None:
            raise
        raise RunError(
            f"restore {source} as it was when the run in {run.directory} began, or choose another --out: {error}"
        ) from error
    changes = _changes(then["files"], _sha256s(found)) if then else ""
    if changes:
        raise RunError(
            f"choose another --out: the source {source!r} draws other tasks than the run in {run.directory} began with"
            if run.settings.tasks.is_plugged
            else f"restore {changes} as it was when the run in {run.directory} began, or choose another --out: the numbers of "
            "other tasks do not belong to this run"
        )
    return found


def _changes(then: dict[str, str], now: dict[str, str], most: int = 3) -> str:
    """The first ``most`` names of files whose tasks are others now, each with what happened to it; empty where there are none."""
    found = [f"{name} (changed)" for name in then if name in now and now[name] != then[name]]
    found += [f"{name} (missing)" for name in then if name not in now]
    found += [f"{name} (new)" for name in now if name not in then]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def remember_tasks(run: Run, source: TaskSource) -> None:
    """Commit the tasks' hashes, once: from here on the run is about these."""

    def hashes() -> dict[str, Any]:
        files = _sha256s(source)
        lines = "".join(f"{name}\n{sha256}\n" for name, sha256 in files.items())
        return {"tasks_sha256": hashlib.sha256(lines.encode()).hexdigest(), "files": files}

    run.once("tasks", hashes)


def _sha256s(source: TaskSource) -> dict[str, str]:
    """The hashes of a source's tasks by file; of one that does not say, of its held-out tasks."""
    if hasattr(source, "sha256s"):
        found: dict[str, str] = source.sha256s()
        return found
    digest = hashlib.sha256(b"".join(texts_digest(task) for task in (*source.dev(), *source.evaluation())))
    return {"held-out tasks": digest.hexdigest()}
