"""What the verbs share: how a run is carried out and shown."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .progress import ConsoleView, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Settings
    from ..run import OnEvent


def choose_view(json_lines: bool) -> AbstractContextManager[OnEvent]:
    """A view of a run on standard output, for a program or for a person; left, it gives the terminal back as it was."""
    if json_lines:
        return nullcontext(print_json)
    # FORCE_COLOR asks for colours, also in a file. A bar that moves is for terminals alone.
    return ConsoleView(Console(highlight=False, force_interactive=None if sys.stdout.isatty() else False))


def execute(settings: Settings, directory: Path, json_lines: bool) -> dict[str, Any]:
    """Run the experiment in ``directory``, or resume it, and show it; its last event is ``done``. Returns the summary."""
    from ..evaluation.experiment import run_experiment

    with choose_view(json_lines) as view:
        return run_experiment(settings, directory, view)


def show_plans(every: Sequence[Settings], json_lines: bool) -> None:
    """Show what each run would do, and run nothing."""
    from ..evaluation.experiment import dry_run

    with choose_view(json_lines) as view:
        for settings in every:
            view("plan", dry_run(settings, view))
