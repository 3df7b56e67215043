"""The command `selfedit`: its help, its verbs, and how it ends.

Exit codes: 0 done, 2 a mistake that the message explains, 130 stopped by the user. torch is imported inside the verbs,
so that help answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from ..errors import SelfEditError
from . import demo, evaluate, grader, import_round, report, run, world

_HELP = """Self-adapting language models: a model reads something new, writes its own
training notes (self-edits) and is trained on them; reinforcement learning
teaches it to write notes that help. Everything runs in one process, on a laptop
too, and the base model's weights are never changed.

Start with:

  selfedit demo                  watch it happen, and get a report
  selfedit world sample          see the passages and the questions
  selfedit run my.toml --dry-run plan your own experiment
  selfedit evaluate my.toml --policy runs/my --protocol stream
                                 test what the trained policy learns, document after document

Each verb tells more: selfedit demo --help"""
_WORLD_HELP = """The embedded world: passages about made-up people, towns, companies and ships.

Nothing about them can be known beforehand: what a model answers without the
passage, it learned from its notes.

For example:
  selfedit world sample --n 2 --family e2
  selfedit world check"""

_GRADER_HELP = """The offline grader: judges free-form answers without a paid judge, and says why.

It was calibrated on verdicts of GPT-4.1; docs/grader.md says how well it agrees
with them. A run uses it with reward.metric = "offline".

For example:
  selfedit grader explain --question "Who wrote Emma?" --gold "Jane Austen" --answer "It was Austen."
  selfedit grader report --data graded.jsonl"""


def build_app() -> App:
    """The command line with all its verbs."""
    # Plain text keeps the help's examples as they are written; booleans have no --no- form, none is on by default.
    app = App(
        name="selfedit",
        help=_HELP,
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        console=Console(highlight=False),
        error_console=Console(stderr=True, highlight=False),
    )
    app.command(demo.demo)
    app.command(run.run)
    app.command(evaluate.evaluate)
    app.command(report.report)
    app.command(import_round.import_round)
    worlds = App(name="world", help=_WORLD_HELP)
    worlds.command(world.check)
    worlds.command(world.sample)
    app.command(worlds)
    graders = App(name="grader", help=_GRADER_HELP)
    graders.command(grader.report)
    graders.command(grader.explain)
    app.command(graders)
    return app


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command with ``tokens`` (default: the process's arguments) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character shows another one; it must not end a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        build_app()(sys.argv[1:] if tokens is None else list(tokens), exit_on_error=False)
    except CycloptsError:
        return 2  # cyclopts has said what is wrong
    except SelfEditError as error:
        print(f"selfedit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost: run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output is gone (`selfedit ... | head`); Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("selfedit")
    except PackageNotFoundError:
        return "unknown (not installed)"


if __name__ == "__main__":
    sys.exit(main())
