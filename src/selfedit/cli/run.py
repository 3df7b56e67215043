"""`selfedit run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from ..config import Settings


def run(
    config: Path,
    /,
    *,
    out: Path | None = None,
    seed: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    dry_run: Annotated[bool, Parameter(show_default=False)] = False,
    check_grader: Annotated[bool, Parameter(show_default=False)] = False,
    json_lines: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Run an experiment from a TOML file of settings, or go on with one that was stopped.

    Every setting has a default, so a file holds only what differs, for example:

      preset = "paper"
      [model]
      path = "Qwen/Qwen2.5-0.5B"
      [tasks]
      source = "squad_dev.json"

    tasks.source is a file of passages with questions (SQuAD, JSONL), or a folder
    of text and Markdown files, about which the base writes the questions itself.

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
    check_grader
        First put gold answers, and answers to other questions, through the
        grader (and your own reward), and stop if it does not tell them apart.
        With --dry-run the plan is printed then, and nothing is trained.
    json_lines
        Print JSON, one object a line, instead of the live view.
    """
    from ..config import load_settings
    from .report import write_pooled
    from .running import choose_view, execute

    overrides: list[dict[str, int]] = [{"seed": n} for n in dict.fromkeys(seed or [])] or [{}]
    all_settings = [load_settings(config, **override) for override in overrides]
    if check_grader:
        _check(all_settings[0], json_lines)
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


def _check(settings: Settings, json_lines: bool) -> None:
    """Show what the grader makes of gold answers; raise where a run on it would be worthless."""
    from ..errors import GraderError
    from ..evaluation.experiment import load_source
    from ..rewards.check import check_grader
    from .running import choose_view

    source = load_source(settings)
    checks = check_grader(
        settings, [*source.dev(), *source.draw(1)]
    )  # never the ladder's tasks: they may be the test's
    with choose_view(json_lines) as view:
        for found in checks:
            view("grader", {**vars(found), "problem": found.problem, "passed": not found.problem, "text": str(found)})
    if problems := "; ".join(found.problem for found in checks if found.problem):
        raise GraderError(f"{problems}: nothing can be learned from such a reward; mend [reward] first")
