"""A run's tables for a terminal: readable at 80 columns and at 120, and without colour or Unicode where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
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

_BAR, _WIDE_BAR, _SHORTEST_BAR, _SHORTEST_LABEL = 10, 20, 4, 8
_COLOURS = {"before RL": "default", "after RL": "bold cyan", "ablation": "yellow", "ceiling": "dim"}
_HEADER = "How the model was prepared"
_FIGURES = ("Accuracy", "95 % interval", "Steps", "Tokens")
ROUNDS_LEGEND = (
    "Reward: mean over the round's valid self-edits. Valid: self-edits that could be trained on. Selected: self-edits that the "
    "policy then learned from. Dev: accuracy on development tasks. KL: divergence from the base, in nats per token. Known: "
    "accuracy on facts that the base already knew. Norm: largest relative change of a weight matrix."
)
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
    if ascii_only:
        return Text("+" if ok else "x", style="green" if ok else "red")
    return Text("✓" if ok else "✗", style="green" if ok else "red")


class LadderTable:
    """The rungs of a ladder, one line each.

    Where there is room, a rung's name in the settings stands beside its label. Where there is little, the bar and then the label
    are shortened; the whole label then follows below the table.
    """

    def __init__(self, ladder: Sequence[LadderRow]) -> None:
        self.ladder = ladder

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.ladder:
            yield Text("The ladder has no rungs.")
            return
        names, labels = [plain(row.rung) for row in self.ladder], [rung_label(row.rung) for row in self.ladder]
        figures = [_figures(row) for row in self.ladder]
        room = options.max_width - sum(1 + _longest(column) for column in zip(_FIGURES, *figures, strict=True))
        longest = _longest([_HEADER, *labels])
        wide = room >= longest + 1 + _WIDE_BAR + 1 + _longest(names)
        bar_width = _WIDE_BAR if wide else min(_BAR, room - longest - 1)
        bar_width = bar_width if bar_width >= _SHORTEST_BAR else 0
        width = longest if wide else max(_SHORTEST_LABEL, min(longest, room - (bar_width and bar_width + 1)))
        table = _table(_shortened(_HEADER, width, options.ascii_only), no_wrap=True)
        if wide:
            table.add_column("Rung", no_wrap=True, style="dim")
        if bar_width:
            table.add_column("", no_wrap=True)
        for name in _FIGURES:
            table.add_column(name, justify="right", no_wrap=True)
        for row, name, label, cells in zip(self.ladder, names, labels, figures, strict=True):
            colour = _COLOURS[rung_group(row.rung)]
            drawn = bar(row.accuracy or 0.0, bar_width, options.ascii_only)
            table.add_row(
                Text(_shortened(label, width, options.ascii_only), style=colour),
                *([Text(name)] if wide else []),
                *([Text(drawn, style=colour)] if bar_width else []),
                *(Text(cell, style=colour if i == 0 else "") for i, cell in enumerate(cells)),
            )
        yield table
        yield Text(_sizes(self.ladder), style="dim")
        if cut := [label for label in labels if cell_len(label) > width]:
            yield Text(f"Shortened above: {', '.join(cut)}.", style="dim")


def _figures(row: LadderRow) -> tuple[str, str, str, str]:
    return percent(row.accuracy), interval(row.low, row.high), count(row.steps), count(row.trained_tokens)


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts))


def _shortened(label: str, width: int, ascii_only: bool) -> str:
    """``label`` in at most ``width`` cells; what is cut off is marked."""
    if cell_len(label) <= width:
        return label
    mark = "..." if ascii_only else "…"
    return set_cell_size(label, width - len(mark)).rstrip() + mark


def ladder_table(summary: AnySummary) -> RenderableType:
    """The ladder: what a model answers after each way of preparing it, with the interval and the cost of training."""
    return LadderTable(summary.ladder)


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


def _table(first: str, no_wrap: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    table.add_column(first, overflow="fold", no_wrap=no_wrap)
    return table


def _sizes(ladder: Sequence[LadderRow]) -> str:
    """What a row is, and on how many tasks and probes the rungs were tested; costly rungs have fewer tasks."""
    (tasks, probes), _ = Counter((row.n_tasks, row.n_probes) for row in ladder).most_common(1)[0]
    text = (
        f"One row per rung. Held-out tasks: {count(tasks)}, with {count(probes)} probes, asked without the passage except "
        f"for {rung_label('in_context')!r}. Steps and tokens are per task."
    )
    fewer = [f"{rung_label(row.rung)} ({count(row.n_tasks)})" for row in ladder if row.n_tasks != tasks]
    return f"{text} Other numbers of tasks: {', '.join(fewer)}." if fewer else text
