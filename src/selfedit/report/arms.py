"""What each arm of a stream retains, in words and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .words import MISSING, count, interval, percent, plain

if TYPE_CHECKING:  # importing pydantic would slow the command's help down
    from ..rows import ArmRow
    from ..summary import Summary

COLUMNS = ("Immediate", "Retained", "Interval", "Share", "Known", "Tokens per passage", "Edits")
ARMS_CAPTION = "One row per arm: one way of learning the stream."
_LEGEND = (
    "Immediate: accuracy on each passage right after its own self-edit. Retained: accuracy on all passages at the end of the "
    "stream, with its 95 % interval over streams and passages. Share: retained accuracy divided by immediate accuracy. Known: "
    "accuracy on facts that the base already knew, before and after the stream. Tokens: tokens trained on per passage. "
)
ARMS_LEGEND = _LEGEND + "Edits: the self-edits of all streams, counted by the decision on each."


def arms_table(summary: Summary) -> RenderableType:
    """For a terminal: what each arm retains, one line per arm; decisions other than ``accepted`` are listed below."""
    made = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="bold")
    # Rich narrows what may wrap: a fixed width keeps names whole, long ones on two lines.
    longest = max((len(plain(name)) for name in summary.arms), default=0)
    made.add_column("Arm", width=min(max(3, longest), 16), overflow="fold")
    for name in (*COLUMNS[:-2], "Tokens", "Merged"):
        made.add_column(name, justify="right", no_wrap=True)
    others = []
    for name, arm in summary.arms.items():
        merged = sum(arm.decisions.get(verdict, 0) for verdict in ("accepted", "scaled"))
        made.add_row(Text(plain(name)), *map(Text, cells(arm)[:-1]), f"{merged}/{sum(arm.decisions.values())}")
        if less := _decisions({verdict: n for verdict, n in arm.decisions.items() if verdict != "accepted"}):
            others.append(f"{plain(name)} {less}")
    listed = f" Edits that were not accepted as they are: {'; '.join(others)}." if others else ""
    reading = f"{ARMS_CAPTION} {_LEGEND}Merged: self-edits that were merged, out of those of all streams.{listed}"
    return Group(made, Text(reading, style="dim"))


def streams_headline(summary: Summary) -> str:
    """The result in a sentence: the merged arm that retains most, and the plain one; empty without a stream."""
    most = max((arm.seeds for arm in summary.arms.values()), default=0)
    retained = {
        name: arm.retained
        for name, arm in summary.arms.items()
        # An arm with fewer streams has other passages: it can't be compared with the rest.
        if arm.merge != "routed" and arm.retained is not None and arm.seeds == most
    }
    if not retained:
        return ""
    shown = dict.fromkeys([max(retained, key=retained.__getitem__), *(name for name in retained if name == "plain")])
    text = " and ".join(f"the arm {plain(name)} answers {percent(retained[name])}" for name in shown)
    text = f"At the end of the stream, {text} of the questions about all passages correctly."
    if summary.no_update is None:
        return text
    alone = f"with each passage's edit learned alone, {percent(summary.single)}"
    return f"{text} Without any edit the model answers {percent(summary.no_update)}; {alone}."


def cells(arm: ArmRow) -> list[str]:
    """The cells of an arm under `COLUMNS`."""
    known = MISSING
    if arm.general_before is not None:
        known = f"{percent(arm.general_before, 0).removesuffix(' %')} → {percent(arm.general_after, 0)}"
    bounds = arm.intervals.retained
    return [
        percent(arm.immediate),
        percent(arm.retained),
        interval(bounds.low, bounds.high) if bounds else MISSING,
        percent(arm.retained_share.mean, 0) if arm.retained_share else MISSING,
        known,
        count(round(arm.trained_tokens)),
        _decisions(arm.decisions),
    ]


def _decisions(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count(n)} {plain(verdict)}" for verdict, n in counts.items() if n)
