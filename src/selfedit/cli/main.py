"""The command `selfedit`: its help, its verbs, and how it ends.

Exit codes: 0 done, 2 a mistake that the message explains, 130 stopped by the user. torch is imported inside the verbs,
so that help answers at once.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from ..errors import SelfEditError
from . import demo, evaluate, grader, import_round, list_plugins, report, run_file, world_sample

_HELP = """Self-adapting language models. A model reads something new, writes its own
training notes (self-edits) and is trained on them. Reinforcement learning
teaches it to write notes that help. Everything runs in one process, also on a
laptop, and the base model's weights are never changed.

Start with:

  selfedit demo                    watch it happen, and get a report
  selfedit world sample            see passages and their questions
  selfedit run my.toml --dry-run   plan your own experiment
  selfedit evaluate my.toml --policy runs/my --protocol stream
                                   test the trained policy on many passages

For the options of a command, add --help: selfedit demo --help"""
_WORLD_HELP = """The embedded world: passages about made-up people, towns, companies and ships.

No model can know these facts beforehand. If a model answers a question without
the passage, it learned the answer from its notes.

For example:
  selfedit world sample --n 2 --family e2
  selfedit world sample --n 100 --form squad --out dev.json"""

_GRADER_HELP = """The offline grader: grades free-form answers without a paid judge, and gives its reasons.

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
        version=partial(version, "selfedit"),
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        console=Console(highlight=False),
        error_console=Console(stderr=True, highlight=False),
    )
    worlds = App(name="world", help=_WORLD_HELP)
    worlds.command(world_sample.sample)
    graders = App(name="grader", help=_GRADER_HELP)
    graders.command(grader.report)
    graders.command(grader.explain)
    verbs = (demo.demo, run_file.run, evaluate.evaluate, report.report, import_round.import_round, list_plugins.plugins)
    for verb in (*verbs, grader.report, grader.explain, world_sample.sample):
        verb.__doc__ = _one_paragraph_per_option(verb)
    for command in (*verbs, worlds, graders):
        app.command(command)
    return app


def _one_paragraph_per_option(verb: Callable[..., Any]) -> str:
    """The docstring of ``verb`` with each parameter's text on one line: help shows a docstring's own line breaks."""
    about, heading, options = inspect.cleandoc(verb.__doc__ or "").partition("Parameters\n----------\n")
    parts = [block.split("\n", 1) for block in re.split(r"\n(?=\S)", options) if "\n" in block]
    return about + heading + "\n".join(f"{name}\n    {' '.join(text.split())}" for name, text in parts)


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
        print("\nStopped. Nothing is lost: run the same command again to continue.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output is gone (`selfedit ... | head`); Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
