"""The command `selfedit`: its help, its verbs, and how it ends.

Exit codes: 0 done, 1 a check found what does not work, 2 a mistake that the message explains, 130 stopped by the user. torch
is imported inside the verbs, so that help answers at once.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from ..disk import disk_error, has_no_room, why_not
from ..errors import SelfEditError
from . import demo, evaluate, grader, import_round, list_plugins, model, report, run_file, world_sample
from .paths import with_home

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

_MODEL_HELP = """Models: fetch small pretrained ones, bring your own, and see what works with them.

A model that was fetched or imported is used by its name, in a settings file
(model.path) and wherever a command takes a model.

For example:
  selfedit model list
  selfedit model get smollm2-135m-instruct
  selfedit model import my-model.Q4_K_M.gguf
  selfedit model check smollm2-135m-instruct"""

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
    graders = App(name="grader", help=_GRADER_HELP)
    models = App(name="model", help=_MODEL_HELP)
    verbs: tuple[tuple[App, str | None, Callable[..., Any]], ...] = (
        (app, None, demo.demo),
        (app, None, run_file.run),
        (app, None, evaluate.evaluate),
        (app, None, report.report),
        (app, None, import_round.import_round),
        (app, None, list_plugins.plugins),
        (models, "list", model.list_models),
        (models, "get", model.get),
        (models, "import", model.import_model),
        (models, "check", model.check),
        (worlds, None, world_sample.sample),
        (graders, None, grader.report),
        (graders, None, grader.explain),
    )
    for group, name, verb in verbs:
        verb.__doc__ = _one_paragraph_per_option(verb)
        group.command(with_home(verb), name=name)
    for group in (models, worlds, graders):
        app.command(group)
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
        code = build_app()(sys.argv[1:] if tokens is None else list(tokens), exit_on_error=False)
    except CycloptsError:
        return 2  # cyclopts has said what is wrong
    except SelfEditError as error:
        print(f"selfedit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. Nothing is lost: run the same command again to continue.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output is gone (`selfedit ... | head`)
        _close_output()
        return 1
    except OSError as error:
        where = Path(error.filename or "standard output")
        if not has_no_room(why_not(where, error)):
            raise
        _close_output()  # it may be what has no room (`selfedit ... > log`)
        print(f"selfedit: {disk_error(where, error)}", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0


def _close_output() -> None:
    """What is still buffered for standard output goes nowhere; Python would complain once more while it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
