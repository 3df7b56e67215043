"""`selfedit run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def run(
    config: Path,
    /,
    *,
    out: Path | None = None,
    seed: int | None = None,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    json_lines: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
) -> None:
    """Run an experiment from a TOML file of settings, or go on with one that was stopped.

    Every setting has a default, so a file holds only what differs, for example:

      preset = "paper"
      [model]
      path = "Qwen/Qwen2.5-0.5B"
      [tasks]
      source = "squad_dev.json"

    The same settings in the same directory resume the run; other settings are
    refused, and the fields are named.

    For example:
      selfedit run my.toml --dry-run
      selfedit run my.toml
      selfedit run runs/demo-seed-0/config.toml --out runs/again

    Parameters
    ----------
    config
        TOML file of settings.
    out
        Directory of the run (default: runs/NAME, after the file; with --seed, runs/NAME-seed-N).
    seed
        Root of every random number, in place of the file's.
    dry_run
        Print what would be done and about how long it takes, and stop.
    json_lines
        Print JSON, one object a line, instead of the live view.
    """
    from ..config import load_settings
    from .running import choose_view, execute

    overrides: dict[str, Any] = {} if seed is None else {"seed": seed}
    settings = load_settings(config, **overrides)
    if dry_run:
        from ..evaluation.experiment import dry_run as rehearse

        with choose_view(json_lines) as view:
            view("plan", rehearse(settings))
        return
    name = config.stem if seed is None else f"{config.stem}-seed-{seed}"
    execute(settings, out or Path("runs") / name, json_lines)
