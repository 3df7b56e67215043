"""How the verbs `demo` and `run` carry out a run: with a view for a person, or one for a program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .progress import ConsoleView, JsonView, View

if TYPE_CHECKING:
    from ..config import Settings


def choose_view(json_lines: bool) -> View:
    """A view of a run on standard output."""
    return JsonView() if json_lines else ConsoleView(Console(highlight=False))


def execute(settings: Settings, directory: Path, json_lines: bool) -> dict[str, Any]:
    """Run the experiment in ``directory``, or go on with it, and show it; its last event is ``done``. Returns the summary."""
    from ..evaluation.experiment import run_experiment

    with choose_view(json_lines) as view:
        return run_experiment(settings, directory, view)
