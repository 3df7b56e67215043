"""A run's tables for a terminal: readable at 80 columns and at 120, and without colour or Unicode where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from .words import (
    MISSING,
    count,
    decimal,
    direction,
    interval,
    percent,
    plain,
    points,
    rung_group,
    rung_label,
)

if TYPE_CHECKING:  # importing pydantic would slow the command's help down
    from ..rows import LadderRow, RoundRow
    from ..summary import AnySummary, Summary

_BAR, _ROOM_FOR_BARS, _ROOM_FOR_NAMES = 8, 80, 110  # cells
_COLOURS = {"before RL": "default", "after RL": "bold cyan", "ablation": "yellow", "ceiling": "dim"}
ROUNDS_LEGEND = (
    "Reward: mean over the round's valid self-edits. Valid: self-edits that could be trained on. Selected: self-edits that the "
    "policy then learned from. Dev: accuracy on development tasks. KL: divergence from the base, in nats per token. Known: "
    "accuracy on facts that the base already knew. Norm: largest relative change of a weight matrix."
)
LOG_P_LEGEND = "Log p: log-likelihood of the right answers, in nats per token."
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int, ascii_only: bool = False) -> str:
    """A bar of ``share`` (0..1) of ``width`` cells, to an eighth of a cell where there is Unicode."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    if ascii_only:
        return ("#" * round(eighths / 8)).ljust(width, ".")
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def mark(ok: bool, ascii_only: bool = False) -> Text:
    """A mark for right or wrong, by shape and by colour."""
    right, wrong = "+x" if ascii_only else "✓✗"
    return Text(right, style="green") if ok else Text(wrong, style="red")


class LadderTable:
    """The ladder: what a model answers after each way of preparing it, with the interval and the cost of training.

    Where there is room, a bar shows the accuracy, and a rung's name in the settings stands beside its label.
    """

    def __init__(self, summary: AnySummary) -> None:
        self.ladder = summary.ladder

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.ladder:
            yield Text("The ladder has no rungs.")
            return
        named, barred = options.max_width >= _ROOM_FOR_NAMES, options.max_width >= _ROOM_FOR_BARS
        table = _table("How the model was prepared")
        if named:
            table.add_column("Rung", overflow="fold", style="dim")
        if barred:
            table.add_column("", no_wrap=True)
        likely = barred and any(_logprob(row) is not None for row in self.ladder)
        for name in ("Accuracy", "95 % interval", *(["Log p"] if likely else []), "Steps", "Tokens"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.ladder:
            colour = _COLOURS[rung_group(row.rung)]
            table.add_row(
                Text(rung_label(row.rung), style=colour),
                *([Text(plain(row.rung))] if named else []),
                *([Text(bar(row.accuracy or 0.0, _BAR, options.ascii_only), style=colour)] if barred else []),
                Text(percent(row.accuracy), style=colour),
                interval(row.low, row.high),
                *([decimal(_logprob(row), 2)] if likely else []),
                *(count(row.steps), count(row.trained_tokens)),
            )
        yield table
        yield Text(f"{_sizes(self.ladder)}{f' {LOG_P_LEGEND}' if likely else ''}", style="dim")


def paired_table(summary: AnySummary) -> RenderableType:
    """Differences between two rungs on the same tasks, in percentage points; bold where the interval excludes 0."""
    if not summary.paired:
        return Text("No paired differences in this run.")
    table = _table("Difference on the same tasks")
    table.add_column("Points", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for row in summary.paired:
        table.add_row(
            Text(f"{rung_label(row.a)} minus {rung_label(row.b)}"),
            Text(points(row.difference), style="bold" if direction(row) else ""),
            interval(row.low, row.high, sign=True),
        )
    return Group(table, Text("One row per pair of rungs; points are percentage points of accuracy.", style="dim"))


def rounds_table(summary: Summary) -> RenderableType:
    """The rounds of reinforcement learning: rewards, the guards' figures, and the decision."""
    if not summary.rounds:
        return Text("No rounds of reinforcement learning in this run.")
    table = _table("Round")
    for name in ("Reward", "Valid", "Selected", "Dev", "KL", "Known", "Norm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Decision", overflow="fold")
    for row in summary.rounds:
        table.add_row(Text(round_name(row)), *round_figures(row), Text(verdict_text(row)))
    return Group(table, Text(f"One row per round of reinforcement learning. {ROUNDS_LEGEND}", style="dim"))


def round_name(row: RoundRow) -> str:
    """A round's number; round 0 is the base."""
    return str(row.round) if row.round else "0 (base)"


def round_figures(row: RoundRow) -> tuple[str, ...]:
    """A round's reward, its shares of valid and selected edits, and the guards' figures."""
    guards = row.guards
    return (
        decimal(row.mean_reward),
        percent(row.valid_share, 0),
        percent(row.selected_share, 0),
        percent(guards.dev_accuracy),
        decimal(guards.kl),
        percent(guards.retention),
        decimal(guards.norm_ratio),
    )


def verdict_text(row: RoundRow) -> str:
    """The decision on a round with its reasons, and how many self-edits were not tried or not graded."""
    verdict = plain(row.verdict).replace("_", " ") or MISSING
    reasons = "; ".join(map(plain, row.reasons))
    unknown = ((row.n_ungraded, "could not be graded"), (row.n_screened, "not tried"))
    counted = [f"{count(n)} self-edits {what}" for n, what in unknown if n]
    text = f"{verdict}: {reasons}" if reasons else verdict
    return f"{text} ({', '.join(counted)})" if counted else text


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    table.add_column(first, overflow="fold")
    return table


def _logprob(row: LadderRow) -> float | None:
    """The right answers' log-likelihood; a row of several runs has none."""
    return getattr(row, "logprob", None)


def _sizes(ladder: Sequence[LadderRow]) -> str:
    """What a row is, and on how many tasks and probes the rungs were tested; costly rungs have fewer tasks."""
    (tasks, probes), _ = Counter((row.n_tasks, row.n_probes) for row in ladder).most_common(1)[0]
    text = (
        f"One row per rung. Held-out tasks: {count(tasks)}, with {count(probes)} probes, asked without the passage except "
        f"for {rung_label('in_context')!r}. Steps and tokens are per task."
    )
    fewer = [f"{rung_label(row.rung)} ({count(row.n_tasks)})" for row in ladder if row.n_tasks != tasks]
    return f"{text} Other numbers of tasks: {', '.join(fewer)}." if fewer else text
