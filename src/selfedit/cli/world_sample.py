"""`selfedit world sample`."""

from __future__ import annotations

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


def sample(
    *,
    n: Count = 3,
    family: Annotated[tuple[Family, ...], Parameter(show_default=" ".join)] = ("e1",),
    split: SampleSplit = "dev",
    seed: int = 0,
    form: Form | None = None,
    out: Path | None = None,
) -> None:
    """Show passages of the embedded world with their questions, or write them to a file.

    For example:
      selfedit world sample
      selfedit world sample --n 500 --family e2 --split train --out train.jsonl
      selfedit world sample --n 100 --form squad --out dev.json

    Parameters
    ----------
    n
        Number of passages.
    family
        Entities per passage: e1 one, e2 two, e3 three. Give the option several times for a mixture.
    split
        The split that the names come from. No name is in two splits.
    seed
        Seed of the draw. The same seed draws the same passages.
    form
        jsonl: one task per line. squad: SQuAD v1 JSON. Without it and without --out, text for reading.
    out
        File to write, as jsonl unless --form is given (default: print to the screen).
    """
    from ..run import write_atomically
    from ..tasks.files import as_text
    from ..tasks.sources.world import draw_tasks
    from .paths import check_file

    check_file(out, "--out")
    tasks = draw_tasks(split, family, n, seed)
    if out is not None:
        write_atomically(out, as_text(tasks, form or "jsonl"))
        print(f"{len(tasks)} tasks written to {out}")
    elif form is not None:
        print(as_text(tasks, form), end="")
    else:
        _show(tasks)


def _show(tasks: Sequence[Task]) -> None:
    console = Console(highlight=False)
    for task in tasks:
        console.print(Text(f"{task.id}  {task.title}", style="bold"))
        console.print(Text(task.text))
        for probe in task.probes:
            answer = Text.assemble(f"  {probe.question} ", (probe.answer, "green"), (f"  {probe.kind}", "dim"))
            console.print(answer)
        console.print()
