"""A run's tables for a terminal: right at 80 columns and at 120, and without colour or Unicode where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from .words import (
    MISSING,
    Row,
    Summary,
    count,
    decimal,
    interval,
    number,
    percent,
    plain,
    points,
    rows,
    rung_group,
    rung_label,
)

_WIDE = 110  # columns from which a rung's name has a column of its own
_COLOURS = {"before RL": "default", "after RL": "bold cyan", "taken apart": "yellow", "ceiling": "dim"}
ROUNDS_LEGEND = (
    "Usable: notes that could be trained on. Kept: notes the policy then learned from. Dev: development accuracy. "
    "KL: drift from the base, nats per token. Known: what the base knew by heart and still answers. "
    "Norm: largest change of a weight matrix, relative."
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
    """Right or wrong, told by shape and by colour."""
    if ascii_only:
        return Text("+" if ok else "x", style="green" if ok else "red")
    return Text("✓" if ok else "✗", style="green" if ok else "red")


class LadderTable:
    """The rungs of a ladder, one a row; lays itself out for the width it is given."""

    def __init__(self, ladder: Sequence[Row]) -> None:
        self.ladder = ladder

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.ladder:
            yield Text("The ladder has no rungs.")
            return
        wide = options.max_width >= _WIDE
        bar_width = 20 if wide else 10
        table = _table("How the model was prepared")
        if wide:
            table.add_column("Rung", no_wrap=True, style="dim")
        for name in ("", "Accuracy", "95 % interval", "Steps", "Tokens"):
            table.add_column(name, justify="left" if not name else "right", no_wrap=True)
        for row in self.ladder:
            rung = str(row.get("rung", ""))
            colour = _COLOURS[rung_group(rung)]
            label = Text(rung_label(rung), style=colour)
            short = Text(plain(rung), style="dim")
            named = [label, short] if wide else [Text("\n").join([label, short])]
            accuracy = number(row.get("accuracy"))
            table.add_row(
                *named,
                Text(bar(accuracy or 0.0, bar_width, options.ascii_only), style=colour),
                Text(percent(accuracy), style=colour),
                interval(row),
                count(row.get("steps")),
                count(row.get("trained_tokens")),
            )
        yield table
        yield Text(_sizes(self.ladder), style="dim")


def ladder_table(summary: Summary) -> RenderableType:
    """The ladder: what each way of preparing the model answers, with its interval and what it cost to train."""
    return LadderTable(rows(summary, "ladder"))


def paired_table(summary: Summary) -> RenderableType:
    """Differences between two rungs on the same tasks, in percentage points; bold where the interval excludes 0."""
    pairs = rows(summary, "paired")
    if not pairs:
        return Text("No paired differences.")
    table = _table("Difference on the same tasks")
    table.add_column("Points", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for row in pairs:
        low, high = number(row.get("low")), number(row.get("high"))
        clear = low is not None and high is not None and (low > 0 or high < 0)
        table.add_row(
            Text(f"{plain(row.get('a', ''))} minus {plain(row.get('b', ''))}"),
            Text(points(row.get("difference")), style="bold" if clear else ""),
            interval(row, sign=True),
        )
    return table


def rounds_table(summary: Summary) -> RenderableType:
    """The rounds of reinforcement learning: rewards, what the guards measured, and what was decided."""
    rounds = rows(summary, "rounds")
    if not rounds:
        return Text("No rounds.")
    table = _table("Round")
    for name in ("Reward", "Usable", "Kept", "Dev", "KL", "Known", "Norm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Verdict", overflow="fold")
    for row in rounds:
        guards = row.get("guards") or {}
        table.add_row(
            Text(round_name(row)),
            decimal(row.get("mean_reward")),
            percent(row.get("valid_share"), 0),
            percent(row.get("selected_share"), 0),
            percent(guards.get("dev_accuracy")),
            decimal(guards.get("kl")),
            percent(guards.get("retention")),
            decimal(guards.get("norm_ratio")),
            Text(verdict_text(row)),
        )
    return Group(table, Text(ROUNDS_LEGEND, style="dim"))


def round_name(row: Row) -> str:
    """A round's number; round 0 is the base."""
    name = plain(row.get("round", "?"))
    return "0, the base" if name == "0" else name


def verdict_text(row: Row) -> str:
    """What was decided on a round, and why; and how many notes nothing is known of, where there are such."""
    reasons = "; ".join(plain(reason) for reason in row.get("reasons") or [])
    verdict = plain(row.get("verdict") or "").replace("_", " ") or MISSING
    unknown = (("n_ungraded", "could not be graded"), ("n_screened", "not tried"))
    counted = [f"{count(row[name])} notes {what}" for name, what in unknown if number(row.get(name))]
    told = f"{verdict}: {reasons}" if reasons else verdict
    return f"{told} ({', '.join(counted)})" if counted else told


class CardTable:
    """The card of a model: what it can do, against what the world wants of it, and what guessing would get."""

    def __init__(self, card: Sequence[Row]) -> None:
        self.card = card

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table("Skill")
        table.add_column("Probes", overflow="fold")
        for name in ("Accuracy", "Wanted"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("Shortcuts", overflow="fold", style="dim")
        for row in self.card:
            ok = row.get("ok")
            table.add_row(
                Text(plain(row.get("skill", ""))),
                Text(
                    " ".join(part for part in (plain(row.get("family") or ""), plain(row.get("probe") or "")) if part)
                ),
                Text(percent(row.get("accuracy")) + "\n") + Text(interval(row), style="dim"),
                Text(_wanted(row.get("wanted"))),
                Text("") if ok is None else mark(bool(ok), options.ascii_only) + Text(" ok" if ok else " missed"),
                Text(_shortcuts(row.get("shortcuts"))),
            )
        yield table
        missed = sum(row.get("ok") is False for row in self.card)
        yield Text(
            f"{missed} of {len(self.card)} rows missed." if missed else f"All {len(self.card)} rows are as wanted."
        )


def card_table(card: Sequence[Row]) -> RenderableType:
    """The rows of `selfedit.evaluation.card.measure` as a table."""
    return CardTable(card)


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    table.add_column(first, overflow="fold")
    return table


def _sizes(ladder: Sequence[Row]) -> str:
    """On how many tasks and probes the rungs were tested; they can differ (costly rungs see fewer)."""
    sizes: dict[tuple[Any, Any], int] = {}
    for row in ladder:
        key = (row.get("n_tasks"), row.get("n_probes"))
        sizes[key] = sizes.get(key, 0) + 1
    (tasks, probes), _ = max(sizes.items(), key=lambda item: item[1])
    if tasks is None:
        return ""
    text = f"Held-out tasks: {count(tasks)}, probes: {count(probes)}, asked without the passage."
    fewer = [
        f"{plain(row.get('rung', ''))} {count(row.get('n_tasks'))}" for row in ladder if row.get("n_tasks") != tasks
    ]
    return f"{text} Other numbers of tasks: {', '.join(fewer)}." if fewer else text


def _wanted(wanted: object) -> str:
    """A wanted value: a smallest accuracy, a (low, high) range, or words."""
    if isinstance(wanted, list | tuple) and len(wanted) == 2:
        return f"{percent(wanted[0], 0)} to {percent(wanted[1], 0)}"
    return percent(wanted, 0) if number(wanted) is not None else MISSING if wanted is None else plain(wanted)


def _shortcuts(shortcuts: object) -> str:
    if not isinstance(shortcuts, Mapping):
        return ""
    return ", ".join(f"{plain(name)} {percent(value, 0)}" for name, value in shortcuts.items())
