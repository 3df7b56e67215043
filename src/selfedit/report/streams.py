"""How streams of passages are shown: what each way of taking them in keeps, as a table, a chart and, if short, a matrix."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import altair as alt

from .arms import COLUMNS, arms_of, cells
from .charts import NARROW, WIDE, legend, percent_axis, styled, svg
from .markup import figure, paragraph, section, table, text
from .words import Row, Summary, number, percent, plain, points

# Okabe and Ito's colours without black, which no dark page shows; then dashes tell lines apart.
_COLOURS = ("#2f86c9", "#E69F00", "#56B4A0", "#CC79A7", "#D55E00", "#8a8a8a", "#8a6fb0", "#b5a32a")
_DASHES = ([1, 0], [6, 3], [2, 2])
_LONGEST_MATRIX = 12  # passages
_READING = (
    "At once: questions of a passage answered right after its own edit; kept: of all passages, at the end of the stream, with "
    "its interval over streams and passages. General: what the base knew by heart, before and after. Tokens: trained on. "
    "Edits: of all streams, merged, merged at a smaller scale, rejected or unusable."
)
_KINDS = {"merged into one model": ("sum", "average", "ties"), "kept apart, and routed": ("routed",)}


def streams_html(summary: Summary) -> str:
    """The section of a report; empty where there is no stream."""
    arms = arms_of(summary)
    if not arms:
        return ""
    wide, narrow = streams_chart(summary, WIDE), streams_chart(summary, NARROW)
    parts = [figure(svg(wide), svg(narrow), "Accuracy on all passages so far, by edits")] if wide is not None else []
    headers = ("Way", *COLUMNS)
    for title, kinds in _KINDS.items():
        lines = [[text(name), *map(text, cells(arm))] for name, arm in arms.items() if arm.get("merge") in kinds]
        if lines:
            parts += [f"<h3>Edits {text(title)}</h3>", table(headers, lines, numeric=range(1, 7))]
    parts.append(paragraph(_READING, "small soft"))
    parts += [part for name, arm in arms.items() if (part := _matrix_html(name, arm))]
    return section("The stream", *parts)


def streams_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Mean accuracy on all passages so far against the number of edits, a line for each way; None without looks."""
    values = [
        {"way": plain(name), "edits": int(n), "accuracy": fmean(known)}
        for name, arm in arms_of(summary).items()
        for n, row in (arm.get("matrix") or {}).items()
        if (known := [value for value in row if number(value) is not None])
    ]
    if not values:
        return None
    names = list(dict.fromkeys(str(value["way"]) for value in values))
    colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(names))]
    dashes = [_DASHES[i // len(_COLOURS) % len(_DASHES)] for i in range(len(names))]
    narrow = width < 450
    data = alt.Chart(alt.InlineData(values=values)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
    lines = data.encode(
        x=alt.X("edits:Q", title="Passages taken in", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y(
            "accuracy:Q",
            scale=alt.Scale(domain=[0, 1]),
            axis=percent_axis("Questions about all of them answered right"),
        ),
        color=alt.Color("way:N", scale=alt.Scale(domain=names, range=colours), legend=legend(2 if narrow else 4)),
        strokeDash=alt.StrokeDash("way:N", scale=alt.Scale(domain=names, range=dashes), legend=None),
    )
    return styled(lines.properties(width=width - 80, height=260))


def _matrix_html(name: str, arm: Row) -> str:
    """Accuracy on each passage after each edit, as SEAL shows it; only of short streams that were looked at after each."""
    matrix: dict[str, Any] = dict(arm.get("matrix") or {})
    if not 1 < len(matrix) <= _LONGEST_MATRIX or len(matrix) != max(map(int, matrix)):
        return ""
    n = len(matrix)
    lines = [
        [text(f"after edit {k}"), *(text(percent(value, 0)) for value in matrix[str(k)]), *[""] * (n - k)]
        for k in range(1, n + 1)
    ]
    lost = (arm.get("backward_transfer") or {}).get("mean")
    told = f"Kept minus at once, mean over passages: {points(lost)} points." if number(lost) is not None else ""
    headers = (plain(name), *(f"passage {i}" for i in range(1, n + 1)))
    return f"<h3>{text(name)}</h3>{table(headers, lines, numeric=range(1, n + 1))}{paragraph(told, 'small soft') if told else ''}"
