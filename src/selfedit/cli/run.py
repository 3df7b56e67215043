"""`selfedit run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def run(
    config: Path,
    /,
    *,
    out: Path | None = None,
    seed: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
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
      selfedit run my.toml --seed 1 2 3
      selfedit run runs/demo-seed-0/config.toml --out runs/again

    Parameters
    ----------
    config
        TOML file of settings.
    out
        Directory of the run (default: runs/NAME, after the file).
    seed
        Root of every random number, in place of the file's; the run is then in
        runs/NAME/seed-N. Several make a run each, and their pooled result beside
        them (pooled.json, ladder.svg).
    dry_run
        Print what would be done and about how long it takes, and stop.
    json_lines
        Print JSON, one object a line, instead of the live view.
    """
    from ..config import load_settings
    from .report import write_pooled
    from .running import choose_view, execute

    overrides: list[dict[str, int]] = [{"seed": n} for n in dict.fromkeys(seed or [])] or [{}]
    all_settings = [load_settings(config, **override) for override in overrides]
    if dry_run:
        from ..evaluation.experiment import dry_run as rehearse

        with choose_view(json_lines) as view:
            for settings in all_settings:
                view("plan", rehearse(settings))
        return
    directory = out or Path("runs") / config.stem
    if not seed or (out and len(all_settings) == 1):
        execute(all_settings[0], directory, json_lines)
        return
    directories = [directory / f"seed-{settings.seed}" for settings in all_settings]
    for settings, own in zip(all_settings, directories, strict=True):
        execute(settings, own, json_lines)
    if len(directories) == 1:
        return
    with choose_view(json_lines) as view:
        view("pooled", write_pooled(directories, directory / "pooled.json", directory / "ladder.svg"))
