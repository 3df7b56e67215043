"""`selfedit grader report` and `selfedit grader explain`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from statistics import fmean
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text


def report(
    *,
    data: Path,
    json_file: Annotated[Path | None, Parameter(name="--json", show_default=False)] = None,
) -> None:
    """Measure how well the offline grader agrees with a judge's verdicts.

    Answers on titles that the grader was calibrated on are skipped, so the
    figures show how it does on others. The interval resamples titles.

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
    from ..rewards.offline_grader import load_grader
    from ..run import write_atomically
    from ..tasks.places import Place
    from .paths import check_file

    check_file(json_file, "--json")
    every, grader = read_graded(data), load_grader()
    rows = [row for row in every if title_hash(row.title) not in grader.titles]
    if not rows:
        Place(data).fail(
            f"the grader was calibrated on the titles of all {len(every)} answers",
            "give answers on other titles; on its own titles it looks better than it is",
        )
    grades = [grader.grade(row.question, [row.gold], row.prediction) for row in rows]
    found = agreement(rows, [grade.right for grade in grades])
    n_excluded = len(every) - len(rows)
    if json_file is not None:
        figures = {name: value for name, value in found.rounded().items() if name != "titles"}
        write_atomically(json_file, dumps(figures | {"n_excluded": n_excluded}, indent=1) + "\n")
    table = Table("", "", box=None, show_header=False)
    table.add_row("agreement with the judge", f"{found.agreement:.3f}  [{found.low:.3f}, {found.high:.3f}]")
    table.add_row("Cohen's kappa", f"{found.kappa:.3f}")
    table.add_row("answers", f"{found.n} on {found.titles} titles")
    table.add_row("skipped, as the grader was calibrated on them", f"{n_excluded}")
    for name, verdict in (("right only for the grader", True), ("right only for the judge", False)):
        alone = sum(g.right is verdict is not row.correct for row, g in zip(rows, grades, strict=True))
        table.add_row(name, f"{alone}")
    table.add_row("decided by a rule", f"{sum(bool(grade.rule) for grade in grades)}")
    features = Table("feature", "mean size of its points (log-odds)", box=None, header_style="dim")
    points = {name: [abs(r.points) for grade in grades for r in grade.reasons if r.feature == name] for name in grader.table}
    for name, sizes in sorted(points.items(), key=lambda item: -sum(item[1])):
        features.add_row(name, f"{fmean(sizes) if sizes else 0:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(features)


def explain(*, question: str, gold: str, answer: str, json_lines: Annotated[bool, Parameter(show_default=False)] = False) -> None:
    """Grade one answer, and show the reasons for the verdict.

    For example:
      selfedit grader explain --question "Who wrote Emma?" --gold "Jane Austen" --answer "It was Austen."

    Parameters
    ----------
    question
        The question.
    gold
        The answer that counts as right.
    answer
        The answer to grade; "" for none.
    json_lines
        Print one JSON object instead: right, probability, rule, base, reasons.
    """
    from ..errors import SettingsError
    from ..rewards.offline_grader import load_grader

    for name, text in (("question", question), ("gold", gold)):
        if not text.strip():
            raise SettingsError(f"--{name} is empty; give a text")
    grade = load_grader().grade(question, [gold], answer)
    if json_lines:
        print(dumps(vars(grade) | {"reasons": [reason._asdict() for reason in grade.reasons]}))
        return
    console = Console(highlight=False)
    verdict = Text("right" if grade.right else "wrong", style="bold green" if grade.right else "bold red")
    console.print(Text.assemble(verdict, f"  probability {grade.probability:.3f}"))
    if grade.rule:
        console.print(Text(f"A rule decided: the answer {grade.rule}."))
        return
    table = Table("feature", "value", "points (log-odds)", box=None, header_style="dim")
    for reason in grade.reasons:
        style = "green" if reason.points > 0 else "red" if reason.points < 0 else ""
        table.add_row(reason.feature, f"{reason.value:.4g}", Text(f"{reason.points:+.2f}", style=style))
    table.add_row("at the start", "", f"{grade.base:+.2f}")
    console.print(table)
