"""A run's charts (altair), drawn without JavaScript: vl-convert turns each into SVG or PNG, offline.

Colours are Okabe and Ito's, which stay apart for every common colour blindness; blue is lightened so that it also holds
on a dark page. Text is drawn in ``currentColor``: an inline SVG takes the page's text colour, light or dark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from .words import (
    Row,
    Summary,
    kind_label,
    last_round,
    number,
    percent,
    plain,
    rows,
    rung_group,
    rung_label,
    style_label,
)

WIDE, NARROW = 680, 330  # plot and axes together fit a page of 1200 px, and of 400 px
_COLOURS = {"before RL": "#8a8a8a", "after RL": "#2f86c9", "taken apart": "#E69F00", "ceiling": "#56B4A0"}
# vl-convert measures text in Liberation Sans, which has Arial's widths: what it lays out fits where either is.
_FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
_GREY = "#8888"


def ladder_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Accuracy of each rung with its 95 % interval; None without rungs that were measured."""
    values = []
    sizes = [row.get("n_tasks") for row in rows(summary, "ladder")]
    usual = max(sizes, key=sizes.count, default=None)
    for i, row in enumerate(rows(summary, "ladder")):
        accuracy = number(row.get("accuracy"))
        if accuracy is None:
            continue
        rung = str(row.get("rung", ""))
        low, high = number(row.get("low")), number(row.get("high"))
        values.append(
            {
                "order": i,
                # Fewer tasks are other tasks: such a bar is not to be read against the others.
                "label": rung_label(rung)
                + (f" ({row['n_tasks']} tasks)" if row.get("n_tasks") not in (usual, None) else ""),
                "group": rung_group(rung),
                "accuracy": accuracy,
                "low": accuracy if low is None else low,
                "high": accuracy if high is None else high,
                "text": percent(accuracy, 0),
            }
        )
    if not values:
        return None
    narrow = width < 450
    labels = [value["label"] for value in values]
    data = alt.Chart(alt.InlineData(values=values))
    # On a narrow page the label stands above its bar, so that the bar keeps the page's whole width.
    axis = None if narrow else _name_axis(255)
    y = alt.Y("label:N", sort=labels, title=None, axis=axis)
    groups = [group for group in _COLOURS if any(value["group"] == group for value in values)]
    colour = alt.Color(
        "group:N",
        scale=alt.Scale(domain=groups, range=[_COLOURS[group] for group in groups]),
        legend=legend(2 if narrow else 4, "square"),
    )
    x = alt.X("accuracy:Q", scale=alt.Scale(domain=[0, 1]), axis=percent_axis("Probes answered right"))
    layers = [
        data.mark_bar(height=13, yOffset=7 if narrow else 0).encode(y=y, x=x, color=colour),
        data.mark_rule(strokeWidth=1.5, color="currentColor", yOffset=7 if narrow else 0).encode(
            y=y, x="low:Q", x2="high:Q"
        ),
        data.mark_text(align="left", dx=6, dy=7 if narrow else 0, fontWeight="bold").encode(
            y=y, x="high:Q", text="text:N"
        ),
    ]
    if narrow:
        layers.append(data.mark_text(align="left", dy=-9).encode(y=y, x=alt.datum(0), text="label:N"))
    plot = width - 40 if narrow else width - 290
    return styled(alt.layer(*layers).properties(width=plot, height=alt.Step(38 if narrow else 26)))


def rounds_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Mean reward and development accuracy by round, a panel each; a rolled back one is hollow. None for one round."""
    rewards: list[dict[str, Any]] = []
    accuracies: list[dict[str, Any]] = []
    for row in rows(summary, "rounds"):
        kept = row.get("verdict") != "rolled_back"
        for found, value in (
            (rewards, row.get("mean_reward")),
            (accuracies, (row.get("guards") or {}).get("dev_accuracy")),
        ):
            if number(value) is not None:
                found.append({"round": row.get("round"), "value": value, "kept": kept})
    titles = ("Mean reward of its notes", "Development accuracy")
    panels = [
        _round_panel(values, title, colour, width)
        for values, title, colour in zip((rewards, accuracies), titles, ("#2f86c9", "#E69F00"), strict=True)
        if len(values) > 1
    ]
    if not panels:
        return None
    return styled(alt.vconcat(*panels) if width < 450 else alt.hconcat(*panels, spacing=40))


def _round_panel(values: list[dict[str, Any]], title: str, colour: str, width: int) -> alt.Chart:
    data = alt.Chart(alt.InlineData(values=values), title=alt.Title(title, anchor="start"))
    x = alt.X("round:O", title="Round", axis=alt.Axis(labelAngle=0))
    y = alt.Y(
        "value:Q",
        title=None,
        axis=alt.Axis(format=".2f", tickCount=5, minExtent=36, domain=False, ticks=False),
        scale=alt.Scale(nice=5),
    )
    line = data.mark_line(strokeWidth=2, color=colour).encode(x=x, y=y)
    rings = data.mark_point(size=90, filled=False, strokeWidth=2, color=colour).encode(x=x, y=y)
    dots = data.mark_point(size=90, filled=True, color=colour, opacity=1).encode(x=x, y=y)
    plot = width - 70 if width < 450 else (width - 150) // 2
    return alt.layer(line, rings, dots.transform_filter("datum.kept")).properties(width=plot, height=160)


def styles_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """What the policy writes: each style's share of its lines, from the base (grey) to the last round (blue)."""
    rounds = [row for row in rows(summary, "rounds") if row.get("style_shares")]
    if not rounds:
        return None
    first, last = rounds[0], rounds[-1]
    styles = {style for row in rounds for style, share in row["style_shares"].items() if number(share)}
    order = sorted(styles, key=lambda style: (_share(first, style) - _share(last, style), style))
    names = [_round_label(row) for row in rounds]
    values = [
        {"style": style_label(style), "round": names[i], "share": _share(row, style)}
        for i, row in enumerate(rounds)
        for style in order
    ]
    spans = [{"style": style_label(style), "from": _share(first, style), "to": _share(last, style)} for style in order]
    narrow = width < 450
    y = alt.Y(
        "style:N", sort=[style_label(style) for style in order], title=None, axis=None if narrow else _name_axis(200)
    )
    rule = alt.Chart(alt.InlineData(values=spans)).mark_rule(strokeWidth=3, color=_GREY)
    dots = alt.Chart(alt.InlineData(values=values)).mark_point(filled=True, opacity=1)
    ramp = _ramp(len(rounds))
    shapes = ["square"] + ["circle"] * (len(rounds) - 1)
    layers = [
        rule.encode(y=y, x="from:Q", x2="to:Q"),
        dots.encode(
            y=y,
            x=alt.X("share:Q", axis=percent_axis("Share of the lines it writes"), scale=alt.Scale(domainMin=0)),
            color=alt.Color("round:N", scale=alt.Scale(domain=names, range=ramp), legend=legend(2 if narrow else 4)),
            shape=alt.Shape("round:N", scale=alt.Scale(domain=names, range=shapes), legend=None),
            size=alt.condition(f"datum.round == {names[-1]!r}", alt.value(110), alt.value(60)),
        ),
    ]
    if narrow:
        labels = alt.Chart(alt.InlineData(values=spans)).mark_text(align="left", dy=-15)
        layers.append(labels.encode(y=y, x=alt.datum(0), text="style:N"))
    plot = width - 40 if narrow else width - 290
    return styled(alt.layer(*layers).properties(width=plot, height=alt.Step(36 if narrow else 24)))


def kinds_chart(summary: Summary, width: int = WIDE) -> alt.Chart | None:
    """Accuracy by kind of probe, for the key rungs. None where there are no two kinds."""
    key = ["no_edit", "passage_only", "base_edits", last_round(summary), "perfect_edits"]
    found = [
        row for row in rows(summary, "by_kind") if row.get("rung") in key and number(row.get("accuracy")) is not None
    ]
    if len({row.get("kind") for row in found}) < 2:
        return None
    found.sort(key=lambda row: key.index(row["rung"]))
    values = [
        {
            "rung": rung_label(str(row["rung"])),
            "kind": kind_label(str(row.get("kind", ""))),
            "accuracy": row["accuracy"],
        }
        for row in found
    ]
    kinds = list(dict.fromkeys(value["kind"] for value in values))
    rungs = list(dict.fromkeys(value["rung"] for value in values))
    palette = dict(
        zip(map(rung_label, filter(None, key)), ("#b8b8b8", "#8a6fb0", "#E69F00", "#2f86c9", "#56B4A0"), strict=False)
    )
    narrow = width < 450
    chart = alt.Chart(alt.InlineData(values=values)).mark_bar()
    return styled(
        chart.encode(
            y=alt.Y("kind:N", sort=kinds, title=None, axis=_name_axis(125)),
            yOffset=alt.YOffset("rung:N", sort=rungs),
            x=alt.X("accuracy:Q", scale=alt.Scale(domain=[0, 1]), axis=percent_axis("Probes answered right")),
            color=alt.Color(
                "rung:N",
                scale=alt.Scale(domain=rungs, range=[palette[rung] for rung in rungs]),
                legend=legend(1 if narrow else 3, "square"),
            ),
        ).properties(width=width - 175, height=alt.Step(11))
    )


def svg(chart: alt.Chart) -> str:
    """The chart as an SVG element to put into a page: no namespaces (HTML needs none), no ids that could clash."""
    text: str = vl_convert.vegalite_to_svg(chart.to_dict())
    for name in (' xmlns="http://www.w3.org/2000/svg"', ' xmlns:xlink="http://www.w3.org/1999/xlink"'):
        text = text.replace(name, "")
    return text


def save(chart: alt.Chart | None, path: Path, scale: float = 2.0) -> Path:
    """Save a chart as PNG or SVG, by ``path``'s ending, on white (for documents).

    Raises ValueError where there is nothing to draw, or for another ending.
    """
    if chart is None:
        raise ValueError("the summary has nothing measured to draw")
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: a chart is saved as .png or .svg")
    spec = chart.properties(background="white", padding=12).to_dict()
    if path.suffix == ".png":
        path.write_bytes(vl_convert.vegalite_to_png(spec, scale=scale))
    else:
        path.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    return path


def _share(row: Row, style: str) -> float:
    return number(row["style_shares"].get(style)) or 0.0


def _round_label(row: Row) -> str:
    name = plain(row.get("round", "?"))
    rolled_back = " (rolled back)" if row.get("verdict") == "rolled_back" else ""
    return "the base" if name == "0" else f"round {name}{rolled_back}"


def _ramp(n: int) -> list[str]:
    """Grey for the start, then lighter to full blue: order is seen in lightness too."""
    blues = ["#a9cfea", "#7fb8df", "#56a0d4", "#2f86c9"]
    if n == 1:
        return ["#8a8a8a"]
    middle = n - 2
    return ["#8a8a8a", *(blues[min(2, i * 3 // max(1, middle))] for i in range(middle)), blues[-1]]


def _name_axis(extent: int) -> alt.Axis:
    """An axis of names with a fixed width: a reader's font may be wider than the one that was measured."""
    return alt.Axis(labelLimit=240, labelPadding=8, ticks=False, domain=False, minExtent=extent)


def legend(columns: int, symbol: str = "circle") -> alt.Legend:
    """A legend above the chart."""
    return alt.Legend(title=None, orient="top", columns=columns, columnPadding=28, labelLimit=280, symbolType=symbol)


def percent_axis(title: str) -> alt.Axis:
    """An axis of shares."""
    return alt.Axis(
        format=".0%", title=title, tickCount=5, ticks=False, domain=False, labelFlush=False, labelOverlap=True
    )


def styled(chart: Any) -> Any:
    """The look every chart shares; transparent, so that the page shows through."""
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFont": _FONT, "titleFont": _FONT}
    return (
        chart.configure(background="transparent", font=_FONT, padding={"left": 4, "top": 4, "bottom": 4, "right": 24})
        .configure_axis(
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor=_GREY, gridOpacity=0.5, **text
        )
        .configure_legend(labelFontSize=12, **text)
        .configure_text(color="currentColor", fontSize=12, font=_FONT)
        .configure_title(color="currentColor", fontSize=13, font=_FONT, fontWeight="bold")
        .configure_view(stroke=None)
    )
