"""`selfedit report`."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from .progress import show_paired, show_pooled, show_result


def report(
    *runs: Path,
    json: Annotated[Path | None, Parameter(show_default=False)] = None,
    chart: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Print a finished run's tables and write its report.html again; pool runs that differ in their seed alone.

    For example:
      selfedit report runs/demo-seed-0
      selfedit report runs/demo-seed-0 runs/demo-seed-1 --json pooled.json

    Parameters
    ----------
    runs
        Directories of finished runs.
    json
        File for the pooled result: the ladder and the paired differences, of
        each seed and of all.
    chart
        File for the pooled ladder as a picture, .svg or .png; of a stream
        what each way keeps.
    """
    from ..errors import RunError
    from ..report.html import write_report
    from ..report.table import rounds_table

    if not runs:
        raise RunError("no run to report on; give the directory of a run, such as runs/demo-seed-0")
    console = Console(highlight=False)
    summaries = [read_summary(run) for run in runs]
    for run, summary in zip(runs, summaries, strict=True):
        write_report(summary, run / "report.html")
    if len(runs) == 1:
        console.print(rounds_table(summaries[0]))
        show_paired(console, summaries[0])
        show_result(console, summaries[0], runs[0])
    if len(runs) > 1 or json or chart:
        pooled = write_pooled(runs, json, chart)
        if len(runs) > 1:
            show_pooled(console, pooled)


def write_pooled(runs: Sequence[Path], json_file: Path | None, chart: Path | None) -> dict[str, Any]:
    """The runs' pooled result, written as JSON and as a picture where asked."""
    from ..errors import RunError
    from ..evaluation.pooled import pool
    from ..report.charts import ladder_chart, save
    from ..report.streams import streams_chart
    from ..run import write_atomically

    summaries = [read_summary(run) for run in runs]
    pooled = pool(summaries)
    try:
        if json_file is not None:
            write_atomically(json_file, dumps(pooled, indent=1, allow_nan=False) + "\n")
        if chart is not None:
            # Several streams are not pooled: their groups are seeds already.
            stream = streams_chart(summaries[0]) if len(runs) == 1 else None
            save(ladder_chart(pooled) if stream is None else stream, chart)
    except (OSError, ValueError) as error:
        raise RunError(f"the pooled result can't be written: {error}") from None
    return pooled


def read_summary(run: Path) -> dict[str, Any]:
    """The summary.json of the run in directory ``run``. Raises `RunError` where there is none that can be read."""
    from ..errors import RunError

    path = run / "summary.json"
    if not run.is_dir():
        raise RunError(f"{run}: no such directory; give the directory of a run, such as runs/demo-seed-0")
    try:
        summary = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{path}: not there; the run isn't finished, start it again and it goes on where it was"
        ) from None
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); start the run again to write it anew") from None
    if not isinstance(summary, dict):
        raise RunError(f"{path}: damaged (no JSON object); start the run again to write it anew")
    return summary
