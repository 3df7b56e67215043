"""`selfedit grader report` and `selfedit grader explain`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..rewards.graded import GradedAnswer
    from ..rewards.offline import Grade

_STRONGEST = 8


def report(
    *,
    data: Path,
    json_file: Annotated[Path | None, Parameter(name="--json", show_default=False)] = None,
) -> None:
    """Measure how well the offline grader agrees with a judge's verdicts.

    Answers on titles that the grader was calibrated on are left out; what is
    left says how it does on others. The interval resamples titles.

    For example:
      selfedit grader report --data graded.jsonl --json agreement.json

    Parameters
    ----------
    data
        JSONL of graded answers: title, question, gold, prediction, correct.
    json_file
        Also write the figures to this file: agreement, kappa, n, n_excluded, low, high.
    """
    from ..rewards.graded import agreement, read_graded, title_hash
    from ..rewards.offline import load_grader
    from ..tasks.places import Place

    every, grader = read_graded(data), load_grader()
    rows = [row for row in every if title_hash(row.title) not in grader.titles]
    if not rows:
        Place(data).fail(
            f"the grader was calibrated on the titles of all {len(every)} answers",
            "give answers on other titles; on its own titles it looks better than it is",
        )
    grades = [grader.grade(row.question, [row.gold], row.prediction) for row in rows]
    measured = agreement(rows, [grade.right for grade in grades]).rounded()
    figures = {name: measured[name] for name in ("agreement", "kappa", "n", "low", "high")}
    figures["n_excluded"] = len(every) - len(rows)
    if json_file is not None:
        _write(json_file, dumps(figures, indent=1) + "\n")
    console = Console(highlight=False)
    console.print(_figures_table(figures, rows, grades))
    console.print(_strongest_table(grades))


def explain(*, question: str, gold: str, answer: str) -> None:
    """Judge one answer, and show what spoke for it and against it.

    For example:
      selfedit grader explain --question "Who wrote Emma?" --gold "Jane Austen" --answer "It was Austen."

    Parameters
    ----------
    question
        What was asked.
    gold
        The answer that counts as right.
    answer
        The answer to judge; "" for none.
    """
    from ..errors import SettingsError
    from ..rewards.offline import load_grader

    for name, text in (("question", question), ("gold", gold)):
        if not text.strip():
            raise SettingsError(f"--{name} is empty; give a text")
    grader = load_grader()
    grade = grader.grade(question, [gold], answer)
    console = Console(highlight=False)
    verdict = Text("right" if grade.right else "wrong", style="bold green" if grade.right else "bold red")
    console.print(Text.assemble(verdict, f"  probability {grade.probability:.3f}"))
    if grade.rule:
        console.print(Text(f"decided by a rule: the answer {grade.rule}"))
        return
    table = Table("feature", "its value", "log-odds", box=None, header_style="dim")
    for reason in grade.reasons[: 2 * _STRONGEST]:
        if abs(reason.weight) >= 0.005:
            style = "green" if reason.weight > 0 else "red"
            table.add_row(Text(reason.feature), f"{reason.value:.4g}", Text(f"{reason.weight:+.2f}", style=style))
    rest = sum(reason.weight for reason in grade.reasons[2 * _STRONGEST :])
    table.add_row("all other features", "", f"{rest:+.2f}")
    table.add_row("before any feature", "", f"{grade.base:+.2f}")
    console.print(table)


def _figures_table(figures: dict[str, Any], rows: Sequence[GradedAnswer], grades: Sequence[Grade]) -> Table:
    table = Table("", "", box=None, show_header=False)
    interval = f"{figures['agreement']:.3f}  [{figures['low']:.3f}, {figures['high']:.3f}]"
    table.add_row("agreement with the judge", interval)
    table.add_row("Cohen's kappa", f"{figures['kappa']:.3f}")
    table.add_row("answers", f"{figures['n']} on {len({row.title for row in rows})} titles")
    table.add_row("left out, calibrated on", f"{figures['n_excluded']}")
    for name, verdict in (("right for the grader alone", True), ("wrong for the grader alone", False)):
        alone = sum(g.right is verdict and row.correct is not verdict for row, g in zip(rows, grades, strict=True))
        table.add_row(name, f"{alone}")
    return table


def _strongest_table(grades: Sequence[Grade]) -> Table:
    """The features that moved these answers' log-odds most, on average."""
    moved: dict[str, float] = defaultdict(float)
    for grade in grades:
        for reason in grade.reasons:
            moved[reason.feature] += abs(reason.weight) / len(grades)
    table = Table("strongest features", "mean change of the log-odds", box=None, header_style="dim")
    for name in sorted(moved, key=lambda name: -moved[name])[:_STRONGEST]:
        table.add_row(name, f"{moved[name]:.2f}")
    return table


def _write(path: Path, content: str) -> None:
    from ..errors import DiskError
    from ..run import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise DiskError(f"{path}: can't be written ({error.strerror}); make room, or choose another path") from None
