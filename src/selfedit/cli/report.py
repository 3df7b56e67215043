"""`selfedit report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console


def report(run: Path, /) -> None:
    """Write a run's report.html again from its summary.json, and print its tables.

    For example:
      selfedit report runs/demo-seed-0

    Parameters
    ----------
    run
        Directory of a finished run.
    """
    from ..report.html import write_report
    from ..report.table import paired_table, rounds_table
    from .progress import show_result

    summary = read_summary(run)
    write_report(summary, run / "report.html")
    console = Console(highlight=False)
    console.print(rounds_table(summary))
    console.print()
    console.print(paired_table(summary))
    show_result(console, summary, run)


def read_summary(run: Path) -> dict[str, Any]:
    """The summary.json of the run in directory ``run``. Raises `RunError` where there is none that can be read."""
    from ..errors import RunError

    path = run / "summary.json"
    if not run.is_dir():
        raise RunError(f"{run}: no such directory; give the directory of a run, such as runs/demo-seed-0")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
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
