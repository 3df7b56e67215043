"""`selfedit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number


def demo(
    *,
    out: Path | None = None,
    seed: int = 0,
    rounds: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json_lines: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Watch a tiny model teach itself, on this machine, with nothing to download.

    The model that comes with the package reads passages about made-up people,
    towns, companies and ships, and writes its own training notes. It is trained
    on them, tested without the passage, and reset. Reinforcement learning then
    rewards the notes that helped. At the end, a ladder compares what the model
    learns before and after, and report.html shows it.

    If it was stopped, run the same command again: it continues where it stopped.

    For example:
      selfedit demo
      selfedit demo --seed 1 --rounds 3 --out runs/longer
      selfedit demo --json-lines > events.jsonl

    Parameters
    ----------
    out
        Directory of the run (default: runs/demo-seed-N).
    seed
        Seed of every random number. Another seed draws other passages.
    rounds
        Rounds of reinforcement learning (default: 3).
    json_lines
        Print one JSON object per line instead of the live view.
    """
    from ..config import make_settings
    from .running import execute

    fields: dict[str, Any] = {"seed": seed}
    if rounds is not None:
        fields["rounds"] = rounds
    execute(make_settings(fields, "demo"), out or Path("runs") / f"demo-seed-{seed}", json_lines)
