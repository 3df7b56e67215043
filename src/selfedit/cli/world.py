"""`selfedit world check` and `selfedit world sample`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from ..types import Task

Family = Literal["e1", "e2", "e3"]
SampleSplit = Literal["train", "dev", "test"]
Form = Literal["jsonl", "squad"]
Count = Annotated[int, Parameter(validator=Number(gte=1))]


def check(
    *,
    model: str = "embedded",
    n: Count = 200,
    json_file: Annotated[Path | None, Parameter(name="--json", show_default=False)] = None,
) -> None:
    """Measure what a model can do in the embedded world: the card every experiment stands on.

    Each row is a skill (reading a passage, writing notes, knowing nothing it was
    not told) with what is wanted of it and, beside it, what shortcuts such as
    guessing would get. A missed row is shown, and is no error.

    For example:
      selfedit world check
      selfedit world check --model ./my-model --json card.json

    Parameters
    ----------
    model
        'embedded', or a directory in the Hugging Face format.
    n
        Questions for each row.
    json_file
        Also write the rows to this file, as JSON.
    """
    from ..evaluation.card import measure
    from ..report.table import card_table
    from .progress import ConsoleView

    console = Console(highlight=False)
    with ConsoleView(console) as view:
        card = measure(model=model, n=n, on_event=view)
    if json_file is not None:
        _write(json_file, json.dumps(card, indent=2) + "\n")
    console.print(card_table(card))


def sample(
    *,
    n: Count = 3,
    family: Annotated[tuple[Family, ...], Parameter(show_default=" ".join)] = ("e1",),
    split: SampleSplit = "dev",
    seed: int = 0,
    form: Form | None = None,
    out: Path | None = None,
) -> None:
    """Look at passages of the embedded world with their questions, or write them to a file.

    For example:
      selfedit world sample
      selfedit world sample --n 500 --family e2 --split train --out train.jsonl
      selfedit world sample --n 100 --form squad --out dev.json

    Parameters
    ----------
    n
        Passages to draw.
    family
        Entities in a passage: e1 one, e2 two, e3 three. Give it again for several.
    split
        Which names: the splits share none.
    seed
        Seed of the draw.
    form
        jsonl: one task a line; squad: SQuAD v1 JSON. Without it, and without --out, text for reading.
    out
        File to write (as jsonl unless --form says otherwise); else the screen.
    """
    from ..tasks.world.source import draw_tasks

    tasks = draw_tasks(split, family, n, seed)
    if out is not None:
        from ..tasks.files import write_tasks

        write_tasks(tasks, out, form or "jsonl")
        print(f"{len(tasks)} tasks written to {out}")
    elif form is not None:
        print(_as_text(tasks, form), end="")
    else:
        _show(tasks)


def _as_text(tasks: Sequence[Task], form: Form) -> str:
    """The tasks in a file's form; by way of a file, so that the screen shows exactly what a file would hold."""
    import tempfile

    from ..tasks.files import write_tasks

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tasks"
        write_tasks(list(tasks), path, form)
        return path.read_text(encoding="utf-8")


def _show(tasks: Sequence[Task]) -> None:
    console = Console(highlight=False)
    for task in tasks:
        console.print(Text(f"{task.id}  {task.title}", style="bold"))
        console.print(Text(task.text))
        for probe in task.probes:
            answer = Text.assemble(f"  {probe.question} ", (probe.answer, "green"), (f"  {probe.kind}", "dim"))
            console.print(answer)
        console.print()


def _write(path: Path, content: str) -> None:
    from ..errors import DiskError

    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise DiskError(f"{path}: can't be written ({error.strerror})") from None
