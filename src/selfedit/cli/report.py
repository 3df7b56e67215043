"""`selfedit report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from .progress import show_pooled, show_result

if TYPE_CHECKING:
    from ..summary import PooledSummary


def report(
    *runs: Path,
    json: Annotated[Path | None, Parameter(show_default=False)] = None,
    chart: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> None:
    """Print a finished run's tables and write its report.html again; pool runs that differ only in their seed.

    For example:
      selfedit report runs/demo-seed-0
      selfedit report runs/demo-seed-0 runs/demo-seed-1 --json pooled.json

    Parameters
    ----------
    runs
        Directories of finished runs.
    json
        File for the pooled result: the ladder and the paired differences, per
        seed and over all seeds.
    chart
        File for a picture, .svg or .png: the pooled ladder, or for a stream the
        accuracy that each arm retains.
    """
    from ..errors import RunError
    from ..report.html import write_report
    from ..report.table import paired_table, rounds_table
    from ..summary import read_run
    from .paths import check_file

    if not runs:
        raise RunError("no run was given; give the directory of a run, such as runs/demo-seed-0")
    check_file(json, "--json")
    check_file(chart, "--chart")
    console = Console(highlight=False)
    summaries = [read_run(run) for run in runs]
    for run, summary in zip(runs, summaries, strict=True):
        write_report(summary, run / "report.html")
    if len(runs) == 1:
        for table in (rounds_table(summaries[0]), "", paired_table(summaries[0])):
            console.print(table)
        show_result(console, summaries[0], runs[0])
    if len(runs) > 1 or json or chart:
        pooled = write_pooled(runs, json, chart)
        if len(runs) > 1:
            show_pooled(console, pooled)


def write_pooled(runs: Sequence[Path], json_file: Path | None, chart: Path | None) -> PooledSummary:
    """The runs' pooled result, written to a JSON file and drawn as a picture where these are named."""
    from ..disk import disk_error
    from ..errors import RunError
    from ..evaluation.pooled import pool
    from ..report.charts import ladder_chart, save, streams_chart
    from ..run import write_atomically
    from ..summary import read_run

    summaries = [read_run(run) for run in runs]
    pooled = pool(summaries)
    if json_file is not None:
        write_atomically(json_file, pooled.to_json())
    if chart is not None:
        # Streams of several runs are not pooled: one run already has several streams.
        stream = streams_chart(summaries[0]) if len(runs) == 1 else None
        try:
            save(ladder_chart(pooled) if stream is None else stream, chart)
        except OSError as error:
            raise disk_error(chart, error, "choose another path") from None
        except ValueError as error:
            raise RunError(f"the chart can't be written: {error}") from None
    return pooled
