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
    """Run an experiment from a TOML file of settings, or resume one that was stopped.

    Every setting has a default, so the file holds only what differs, for example:

      preset = "paper"
      [model]
      path = "Qwen/Qwen2.5-0.5B"
      [tasks]
      source = "squad_dev.json"

    tasks.source is a file of passages with questions (SQuAD, JSONL ...), or a folder
    of text and Markdown files; for a folder, the base model writes the questions.

    The same settings in the same directory resume the run. Other settings or
    changed tasks are refused, and the message names the fields or files.

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
        Directory of the run (default: runs/NAME, where NAME is the file's name).
    seed
        Seed of every random number. It replaces the file's seed, and the run is
        then in runs/NAME/seed-N. Several seeds make one run each, with their
        pooled result in runs/NAME (pooled.json, ladder.svg).
    dry_run
        Print what would be done and how long it takes, and stop.
    check_grader
        Before the run, grade gold answers and wrong answers with the grader (and
        with your own reward). Stop if the grader can't separate them. With
        --dry-run, the plan is printed after the check and nothing is trained.
    json_lines
        Print one JSON object per line instead of the live view.
    """
    from ..config import load_settings
    from .paths import check_directory
    from .report import write_pooled
    from .running import choose_view, execute, show_plans

    overrides: list[dict[str, int]] = [{"seed": n} for n in dict.fromkeys(seed or [])] or [{}]
    all_settings = [load_settings(config, **override) for override in overrides]
    directory = out or Path("runs") / config.stem
    alone = not seed or (out is not None and len(all_settings) == 1)
    directories = [directory] if alone else [directory / f"seed-{settings.seed}" for settings in all_settings]
    for own in directories:
        check_directory(own)
    if check_grader:
        _check(all_settings[0], json_lines)
    if dry_run:
        show_plans(all_settings, json_lines)
        return
    for settings, own in zip(all_settings, directories, strict=True):
        execute(settings, own, json_lines)
    if len(directories) > 1:
        with choose_view(json_lines) as view:
            pooled = write_pooled(directories, directory / "pooled.json", directory / "ladder.svg")
            view("pooled", pooled.to_dict())


def _check(settings: Settings, json_lines: bool) -> None:
    """Show how the grader judges gold and wrong answers. Raises `GraderError` where it can't separate them."""
    from ..errors import GraderError
    from ..rewards.check import check_grader
    from ..tasks.sources.base import open_source
    from .running import choose_view

    source = open_source(settings)
    tasks = [*source.dev(), *source.draw(1)]  # never the ladder's tasks, which may be test tasks
    checks = check_grader(settings, tasks)
    with choose_view(json_lines) as view:
        for found in checks:
            view("grader", {**vars(found), "problem": found.problem, "passed": not found.problem, "text": str(found)})
    if problems := "; ".join(found.problem for found in checks if found.problem):
        raise GraderError(f"{problems}: a policy can learn nothing from such a reward; change the settings in [reward] first")
