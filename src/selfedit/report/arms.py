"""What each way of taking in a stream keeps, in words and for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .words import MISSING, Row, Summary, count, interval, number, percent, plain

COLUMNS = ("At once", "Kept", "95 %", "Of it", "General", "Tokens a passage", "Edits")


def arms_of(summary: Summary) -> dict[str, Row]:
    """The stream's arms by name; none where the summary has no stream."""
    arms = summary.get("arms")
    return dict(arms) if isinstance(arms, Mapping) else {}


def arms_table(summary: Summary) -> RenderableType:
    """For a terminal: what each way keeps."""
    made = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    ways = arms_of(summary)
    # Rich narrows what may wrap, the widest first; a fixed width keeps names whole, long ones on two lines.
    longest = max((len(plain(name)) for name in ways), default=0)
    made.add_column("Way", width=min(max(3, longest), 16), overflow="fold")
    for name in COLUMNS:
        made.add_column(name, justify="right", no_wrap=name not in ("Tokens a passage", "Edits"))
    for name, arm in ways.items():
        made.add_row(Text(plain(name)), *map(Text, cells(arm)))
    return made


def streams_headline(summary: Summary) -> str:
    """The outcome in a sentence: the merged way that keeps most, beside the plain one; empty without a stream."""
    arms = arms_of(summary)
    most = max((int(number(arm.get("seeds")) or 0) for arm in arms.values()), default=0)
    kept = {
        name: float(arm["retained"])
        for name, arm in arms.items()
        # Fewer streams are other passages: not to be named beside the rest.
        if arm.get("merge") != "routed"
        and number(arm.get("retained")) is not None
        and (number(arm.get("seeds")) or 0) == most
    }
    if not kept:
        return ""
    shown = dict.fromkeys([max(kept, key=kept.__getitem__), *(name for name in kept if name == "plain")])
    told = " and ".join(f"{plain(name)} keeps {percent(kept[name])}" for name in shown)
    without, alone = number(summary.get("no_update")), percent(summary.get("single"))
    beside = "" if without is None else f" (nothing learned: {percent(without)}; each passage alone: {alone})"
    return f"Of the questions about all passages, {told} at the end of the stream{beside}."


def cells(arm: Row) -> list[str]:
    """An arm's cells: at once, kept, the share of it, general knowledge before and after, what became of the edits."""
    share = arm.get("retained_share") or {}
    decisions = arm.get("decisions") or {}
    edits = ", ".join(f"{count(n)} {plain(verdict)}" for verdict, n in decisions.items() if n)
    general = f"{percent(arm.get('general_before'), 0).removesuffix(' %')} → {percent(arm.get('general_after'), 0)}"
    if number(arm.get("general_before")) is None:
        general = MISSING
    tokens = number(arm.get("trained_tokens"))
    cost = MISSING if tokens is None else count(round(tokens))
    kept = [percent(arm.get("retained")), interval((arm.get("intervals") or {}).get("retained") or {})]
    return [percent(arm.get("immediate")), *kept, percent(share.get("mean"), 0), general, cost, edits]
