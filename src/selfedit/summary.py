"""A run's ``summary.json`` and the pooled result of several runs, as types. `rows` describes their parts.

`read_summary` reads a file, `Document.to_json` writes one. A file of the first edition has no ``schema_version`` (that is
version 1). It is read as well: what it lacks has its default, and fields that are not known here are ignored. A file of this
version has exactly these fields; raise `SCHEMA_VERSION` where a field is added, removed or renamed. The JSON Schema of both is
``docs/summary.schema.json``, written by ``python -m tools.summary_schema``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from .errors import RunError
from .rows import ArmRow, Example, Interval, PooledPairedRow, PooledRungRow, ReliabilityRow, Row, RunFigures

SCHEMA_VERSION = 2
SUMMARY_FILE = "summary.json"


class Document(Row):
    """A file of its own, with the version of its fields."""

    schema_version: int = Field(1, description="version of these fields; 1 is the first edition, whose files have none")

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


class Summary(RunFigures, Document):
    """The result of one run."""

    reliability: ReliabilityRow = Field(description="how much of the reward is signal, over all rounds")
    per_task: dict[str, dict[str, float]] = Field(description="accuracy by rung and task")
    style_shares: dict[str, dict[str, float]] = Field(description="share of each style of line, by rung")
    examples: tuple[Example, ...] = Field(description="a few tasks with what was written and answered at some rungs")
    notes: tuple[str, ...] = Field(description="what a reader should know about this run")
    policies: tuple[str | None, ...] = Field(description="hash of the policy after each round; null is the base")
    base_sha256_before: str = Field(description="hash of the base's weights when the run started")
    base_sha256_after: str = Field(description="the same hash at the end")
    learner_sha256_before: str | None = Field(None, description="hash of the weights of another model that learns")
    learner_sha256_after: str | None = Field(None, description="the same hash at the end")
    dtype: str = Field(description="dtype of the base and the computation")
    learner_dtype: str | None = Field(None, description="dtype of the learner, if another model learns")
    settings: dict[str, Any] = Field(description="the run's settings, as in its config.toml")
    selfedit_version: str = Field(description="version of selfedit that made the run")
    arms: dict[str, ArmRow] = Field({}, description="the arms of a stream, by name")
    no_update: float | None = Field(None, description="of a stream: accuracy on its passages without any edit")
    in_context: float | None = Field(None, description="of a stream: accuracy with the passage in the prompt")
    single: float | None = Field(None, description="of a stream: accuracy where each passage's edit is learned alone")

    def setting(self, path: str) -> Any:
        """The setting at ``path``, such as ``protocol.name``; null where this run's settings have no such field."""
        found: Any = self.settings
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found


class PooledSummary(Document):
    """The result of several runs that differ in their seed alone; intervals are over seeds and tasks."""

    ladder: tuple[PooledRungRow, ...] = Field(description="the rungs that every run has")
    paired: tuple[PooledPairedRow, ...] = Field(description="differences between two rungs on the same tasks")
    share_of_possible: Interval | None = Field(
        description="(last round - base_edits) / (perfect_edits - base_edits); null where the denominator may be 0"
    )
    seeds: tuple[RunFigures, ...] = Field(description="each run's own figures")
    settings: dict[str, Any] = Field(description="the runs' settings without the seed")
    base_sha256: str = Field(description="hash of the base's weights")
    learner_sha256: str | None = Field(None, description="hash of the learner's weights, where another model learns")
    selfedit_version: str = Field(description="version of selfedit that made the first run")
    notes: tuple[str, ...] = Field(description="what a reader should know about these runs")


AnySummary = Summary | PooledSummary
SomeRow = TypeVar("SomeRow", bound=Row)


def read_summary(source: Path | Mapping[str, Any]) -> AnySummary:
    """The summary in a file, or in an object that was read from one. ``seeds`` tells a pooled result from a run's.

    Raises:
        RunError: it is not there, damaged, of a newer version, or something else than a summary.
    """
    name, data = (str(source), _load(source)) if isinstance(source, Path) else ("the summary", source)
    if not isinstance(data, Mapping):
        raise RunError(f"{name}: not a summary (no JSON object); give a run's {SUMMARY_FILE}, or a pooled result")
    version = data.get("schema_version", 1)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunError(
            f"{name}: written by a newer version of selfedit (schema_version {version}, this one reads up to "
            f"{SCHEMA_VERSION}); update selfedit to read it"
        )
    kind: type[Summary] | type[PooledSummary] = PooledSummary if "seeds" in data else Summary
    try:
        return kind.model_validate_json(json.dumps(data, allow_nan=False), extra="ignore" if version == 1 else None)
    except (ValueError, TypeError) as error:
        raise RunError(f"{name}: not a summary ({_problem(error)}); give a run's {SUMMARY_FILE}, or a pooled result") from None


def read_run(run: Path) -> Summary:
    """The summary of the finished run in the directory ``run``.

    Raises:
        RunError: there is no such directory, the run is not finished, or its summary can't be read.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such directory; give the directory of a run, such as runs/demo-seed-0")
    found = read_summary(run / SUMMARY_FILE)
    if isinstance(found, PooledSummary):
        raise RunError(f"{run / SUMMARY_FILE}: a pooled result; give the directory of one of its runs")
    return found


def new_summary(data: Mapping[str, Any]) -> Summary:
    """The summary of a run that has just finished; ``data`` holds its fields.

    Raises:
        RunError: a field is missing, unknown, of another type, or not a finite number.
    """
    try:
        return Summary.model_validate_json(json.dumps({"schema_version": SCHEMA_VERSION, **data}, allow_nan=False))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"the result can't be written as a summary ({_problem(error)}); report this, or change the plug-in that made it"
        ) from None


def row_of(kind: type[SomeRow], data: Mapping[str, Any]) -> SomeRow | None:
    """A part of a summary from an event; null where the event is not a whole one."""
    try:
        return kind.model_validate_json(json.dumps(data), extra="ignore")
    except (ValueError, TypeError):
        return None


def _load(path: Path) -> Any:
    again = f"move it away and start the run again: only {SUMMARY_FILE} and report.html are written again"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: not there; the run isn't finished, start it again and it continues") from None
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); {again}") from None


def _problem(error: Exception) -> str:
    """The first field that is wrong, and what is wrong with it."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
