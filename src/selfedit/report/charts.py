"""A run's charts (altair), drawn without JavaScript: vl-convert turns each into SVG or PNG, offline.

Colours are Okabe and Ito's, which people with any common colour blindness can distinguish; blue is lightened for dark
pages. Text is drawn in ``currentColor``: an inline SVG takes the page's text colour, light or dark.

Every chart is drawn in a given width in pixels. On a narrow page, names stand above their rows, so that these keep the whole
width. A chart without a measurement is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import altair as alt
import vl_convert

from ..rows import RoundRow
from ..summary import AnySummary, Summary
from .words import kind_label, last_round, percent, plain, rung_group, rung_label, style_label

WIDE, NARROW = 680, 330  # plot and axes together fit a page of 1200 px, and of 400 px
_GREY, _BLUE, _ORANGE, _GREEN, _PURPLE = "#8a8a8a", "#2f86c9", "#E69F00", "#56B4A0", "#8a6fb0"
_GROUPS = {"before RL": _GREY, "after RL": _BLUE, "ablation": _ORANGE, "ceiling": _GREEN}
_KEY_RUNGS = {"no_edit": "#b8b8b8", "passage_only": _PURPLE, "base_edits": _ORANGE, "": _BLUE, "perfect_edits": _GREEN}
# Without black, which a dark page would hide; more lines than colours differ by their dashes.
_ARMS = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#D55E00", _GREY, _PURPLE, "#b5a32a")
_DASHES = ([1, 0], [6, 3], [2, 2])
_BLUES = ("#a9cfea", "#7fb8df", "#56a0d4")
# vl-convert measures text in Liberation Sans, which has Arial's widths: what it lays out fits where either is.
_FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
_LINES = "#8888"


def ladder_chart(summary: AnySummary, width: int = WIDE) -> alt.Chart | None:
    """Accuracy of each rung with its 95 % interval."""
    sizes = [row.n_tasks for row in summary.ladder]
    usual = max(sizes, key=sizes.count, default=None)
    values = [
        {
            "order": i,
            # A rung with fewer tasks has other tasks: its bar can't be compared with the others, and says so.
            "label": rung_label(row.rung) + (f" ({row.n_tasks} tasks)" if row.n_tasks != usual else ""),
            "group": rung_group(row.rung),
            "accuracy": row.accuracy,
            "low": row.accuracy if row.low is None else row.low,
            "high": row.accuracy if row.high is None else row.high,
            "text": percent(row.accuracy, 0),
        }
        for i, row in enumerate(summary.ladder)
        if row.accuracy is not None
    ]
    if not values:
        return None
    narrow = _narrow(width)
    data = alt.Chart(alt.InlineData(values=values))
    y = _names("label", [str(value["label"]) for value in values], 255, narrow)
    x = alt.X("accuracy:Q", scale=alt.Scale(domain=[0, 1]), axis=_percent_axis("Probes answered correctly"))
    groups = {group: colour for group, colour in _GROUPS.items() if any(v["group"] == group for v in values)}
    below = 7 if narrow else 0
    layers = [
        data.mark_bar(height=13, yOffset=below).encode(y=y, x=x, color=_colours("group", groups, 2 if narrow else 4, "square")),
        data.mark_rule(strokeWidth=1.5, color="currentColor", yOffset=below).encode(y=y, x="low:Q", x2="high:Q"),
        data.mark_text(align="left", dx=6, dy=below, fontWeight="bold").encode(y=y, x="high:Q", text="text:N"),
    ]
    if narrow:
        layers.append(_names_above(data, y, "label", -9))
    return _styled(alt.layer(*layers).properties(width=_plot_width(width), height=alt.Step(38 if narrow else 26)))


def rounds_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Mean reward and development accuracy by round, a panel each; a rolled back round is hollow. None for one round."""
    rewards = [(row, row.mean_reward) for row in summary.rounds]
    accuracies = [(row, row.guards.dev_accuracy) for row in summary.rounds]
    panels = [
        _round_panel(values, title, colour, width)
        for found, title, colour in (
            (rewards, "Mean reward of its self-edits", _BLUE),
            (accuracies, "Development accuracy", _ORANGE),
        )
        if len(values := [_round_value(row, value) for row, value in found if value is not None]) > 1
    ]
    if not panels:
        return None
    return _styled(alt.vconcat(*panels) if _narrow(width) else alt.hconcat(*panels, spacing=40))


def _round_value(row: RoundRow, value: float) -> dict[str, Any]:
    return {"round": row.round, "value": value, "kept": row.verdict != "rolled_back"}


def _round_panel(values: list[dict[str, Any]], title: str, colour: str, width: int) -> alt.Chart:
    axis = alt.Axis(format=".2f", tickCount=5, minExtent=36, domain=False, ticks=False)
    data = alt.Chart(alt.InlineData(values=values), title=alt.Title(title, anchor="start")).encode(
        x=alt.X("round:O", title="Round", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=None, axis=axis, scale=alt.Scale(nice=5)),
    )
    line = data.mark_line(strokeWidth=2, color=colour)
    rings = data.mark_point(size=90, filled=False, strokeWidth=2, color=colour)
    dots = data.mark_point(size=90, filled=True, color=colour, opacity=1).transform_filter("datum.kept")
    plot = width - 70 if _narrow(width) else (width - 150) // 2
    return alt.layer(line, rings, dots).properties(width=plot, height=160)


def styles_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """The share of each style among the lines that the policy writes, from the base (grey) to the last round (blue)."""
    rounds = [row for row in summary.rounds if row.style_shares]
    if not rounds:
        return None
    first, last = rounds[0].style_shares, rounds[-1].style_shares
    styles = {style for row in rounds for style, share in row.style_shares.items() if share}
    order = sorted(styles, key=lambda style: (first.get(style, 0.0) - last.get(style, 0.0), style))
    names = [_round_label(row) for row in rounds]
    values = [
        {"style": style_label(style), "round": name, "share": row.style_shares.get(style, 0.0)}
        for name, row in zip(names, rounds, strict=True)
        for style in order
    ]
    spans = [{"style": style_label(style), "from": first.get(style, 0.0), "to": last.get(style, 0.0)} for style in order]
    narrow = _narrow(width)
    y = _names("style", [style_label(style) for style in order], 200, narrow)
    x = alt.X("share:Q", axis=_percent_axis("Share of the lines it writes"), scale=alt.Scale(domainMin=0))
    ends = alt.Chart(alt.InlineData(values=spans))
    dots = alt.Chart(alt.InlineData(values=values)).mark_point(filled=True, opacity=1)
    shapes = ["square"] + ["circle"] * (len(rounds) - 1)
    layers = [
        ends.mark_rule(strokeWidth=3, color=_LINES).encode(y=y, x="from:Q", x2="to:Q"),
        dots.encode(
            y=y,
            x=x,
            color=_colours("round", dict(zip(names, _ramp(len(rounds)), strict=True)), 2 if narrow else 4),
            shape=alt.Shape("round:N", scale=alt.Scale(domain=names, range=shapes), legend=None),
            size=alt.condition(f"datum.round == {names[-1]!r}", alt.value(110), alt.value(60)),
        ),
    ]
    if narrow:
        layers.append(_names_above(ends, y, "style", -15))
    return _styled(alt.layer(*layers).properties(width=_plot_width(width), height=alt.Step(36 if narrow else 24)))


def kinds_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Accuracy by kind of probe, for the key rungs. None where there are no two kinds."""
    palette = {name or last_round(summary): colour for name, colour in _KEY_RUNGS.items()}
    order = list(palette)
    found = sorted((row for row in summary.by_kind if row.rung in palette), key=lambda row: order.index(row.rung))
    if len({row.kind for row in found}) < 2:
        return None
    values = [{"rung": rung_label(row.rung), "kind": kind_label(row.kind), "accuracy": row.accuracy} for row in found]
    colours = {rung_label(row.rung): palette[row.rung] for row in found}
    chart = alt.Chart(alt.InlineData(values=values)).mark_bar()
    return _styled(
        chart.encode(
            y=_names("kind", list(dict.fromkeys(kind_label(row.kind) for row in found)), 125),
            yOffset=alt.YOffset("rung:N", sort=list(colours)),
            x=alt.X("accuracy:Q", scale=alt.Scale(domain=[0, 1]), axis=_percent_axis("Probes answered correctly")),
            color=_colours("rung", colours, 1 if _narrow(width) else 3, "square"),
        ).properties(width=width - 175, height=alt.Step(11))
    )


def streams_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Mean accuracy on all passages so far against the number of edits, one line per arm."""
    values = [
        {"arm": plain(name), "edits": int(n), "accuracy": fmean(known)}
        for name, arm in summary.arms.items()
        for n, row in arm.matrix.items()
        if (known := [value for value in row if value is not None])
    ]
    if not values:
        return None
    names = list(dict.fromkeys(str(value["arm"]) for value in values))
    colours = {name: _ARMS[i % len(_ARMS)] for i, name in enumerate(names)}
    dashes = [_DASHES[i // len(_ARMS) % len(_DASHES)] for i in range(len(names))]
    data = alt.Chart(alt.InlineData(values=values)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30))
    lines = data.encode(
        x=alt.X("edits:Q", title="Passages learned so far", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1]), axis=_percent_axis("Accuracy on all of them")),
        color=_colours("arm", colours, 2 if _narrow(width) else 4),
        strokeDash=alt.StrokeDash("arm:N", scale=alt.Scale(domain=names, range=dashes), legend=None),
    )
    return _styled(lines.properties(width=width - 80, height=260))


def svg(chart: alt.Chart) -> str:
    """The chart as an SVG element to put into a page: no namespaces (HTML needs none), no ids that could clash."""
    text: str = vl_convert.vegalite_to_svg(chart.to_dict())
    for name in (' xmlns="http://www.w3.org/2000/svg"', ' xmlns:xlink="http://www.w3.org/1999/xlink"'):
        text = text.replace(name, "")
    return text


def save(chart: alt.Chart | None, path: Path) -> Path:
    """Save a chart as PNG or SVG, by ``path``'s ending, on white (for documents).

    Raises ValueError where there is nothing to draw, or where the ending is another one.
    """
    if chart is None:
        raise ValueError("the summary has no measured accuracy to draw")
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: a chart is saved as .png or .svg")
    chart.properties(background="white", padding=12).save(path, scale_factor=2 if path.suffix == ".png" else 1)
    return path


def _round_label(row: RoundRow) -> str:
    rolled_back = " (rolled back)" if row.verdict == "rolled_back" else ""
    return f"round {row.round}{rolled_back}" if row.round else "base"


def _ramp(n: int) -> list[str]:
    """Grey for the base, then from light to full blue, so that lightness shows the order too."""
    middle = [_BLUES[min(2, i * 3 // max(1, n - 2))] for i in range(n - 2)]
    return [_GREY, *middle, _BLUE][:n]


def _narrow(width: int) -> bool:
    return width < 450


def _plot_width(width: int) -> int:
    """The width that is left for the bars of a chart with long names."""
    return width - (40 if _narrow(width) else 290)


def _names(field: str, order: Sequence[str], extent: int, above: bool = False) -> alt.Y:
    """Rows with names; beside the rows in a fixed width, as a reader's font may be wider than the one measured here."""
    axis = alt.Axis(labelLimit=240, labelPadding=8, ticks=False, domain=False, minExtent=extent)
    return alt.Y(f"{field}:N", sort=list(order), title=None, axis=None if above else axis)


def _names_above(data: alt.Chart, y: alt.Y, field: str, dy: int) -> alt.Chart:
    return data.mark_text(align="left", dy=dy).encode(y=y, x=alt.datum(0), text=f"{field}:N")


def _colours(field: str, palette: dict[str, str], columns: int, symbol: str = "circle") -> alt.Color:
    """Colours by name, with a legend above the chart."""
    legend = alt.Legend(title=None, orient="top", columns=columns, columnPadding=28, labelLimit=280, symbolType=symbol)
    scale = alt.Scale(domain=list(palette), range=list(palette.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def _percent_axis(title: str) -> alt.Axis:
    """An axis of shares."""
    return alt.Axis(format=".0%", title=title, tickCount=5, ticks=False, domain=False, labelFlush=False, labelOverlap=True)


def _styled(chart: Any) -> Any:
    """The style of every chart; transparent, so that the page shows through."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFont": _FONT, "titleFont": _FONT}
    return (
        chart.configure(background="transparent", font=_FONT, padding={"left": 4, "top": 4, "bottom": 4, "right": 24})
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor=_LINES, gridOpacity=0.5, **text)
        .configure_legend(labelFontSize=12, **text)
        .configure_text(color="currentColor", fontSize=12, font=_FONT)
        .configure_title(color="currentColor", fontSize=13, font=_FONT, fontWeight="bold")
        .configure_view(stroke=None)
    )
