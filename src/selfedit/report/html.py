"""A run's report: one HTML file that opens anywhere, offline, without a script.

The page is ``assets/report/report.html.jinja``. The charts are SVG that vl-convert drew beforehand, each in two widths; CSS
shows the one that fits. What a model wrote is untrusted: every text on the page goes through `words.plain` (control characters
are removed) and is escaped, and the page's content policy forbids scripts and anything from outside, in case a text ever gets
through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..config import differing_fields, make_settings
from ..errors import SettingsError
from ..rows import ArmRow, Example
from ..run import write_atomically
from ..summary import Summary
from . import arms, charts, table, words

_TEMPLATES = Path(__file__).resolve().parents[1] / "assets" / "report"
_LONGEST_MATRIX = 12  # passages
_CHARTS = {
    "ladder": charts.ladder_chart,
    "kinds": charts.kinds_chart,
    "styles": charts.styles_chart,
    "rounds": charts.rounds_chart,
    "streams": charts.streams_chart,
}


def write_report(summary: Summary, path: Path) -> None:
    """Write the report of a run to ``path``, whole or not at all. Raises `DiskError` where it can't be written."""
    write_atomically(path, report_html(summary))


def report_html(summary: Summary) -> str:
    """The report as one HTML page."""
    reliability = summary.reliability
    hashes = (
        ("Base", summary.base_sha256_before, summary.base_sha256_after),
        ("Learner", summary.learner_sha256_before, summary.learner_sha256_after),
    )
    page = {
        "protocol": str(summary.setting("protocol.name")),
        "headline": arms.streams_headline(summary) or words.headline(summary),
        "figures": {name: _figure(draw(summary), draw(summary, charts.NARROW)) for name, draw in _CHARTS.items()},
        "short_streams": [(name, arm) for name, arm in summary.arms.items() if _is_short(arm)],
        "matrix_columns": ("Edits", *(f"passage {i + 1}" for i in range(_LONGEST_MATRIX))),
        "examples": [_example(example) for example in summary.examples],
        "reliability": words.reliability_line(reliability.reliability, reliability.seeds_for_80, reliability.of),
        "limits": next((row.guards.limits for row in summary.rounds if row.guards.limits), {}),
        "weights": [(whose, before, after) for whose, before, after in hashes if before and after],
        "settings": list(_flat(summary.settings)),
        "command": reproduce_command(summary),
    }
    return _environment().get_template("report.html.jinja").render(run=summary, page=page)


def reproduce_command(summary: Summary) -> str:
    """The command that does this run again: ``demo`` for the demo's settings, otherwise ``run`` on its config.toml."""
    other = "selfedit run config.toml --out runs/again"
    seed, rounds = summary.setting("seed"), summary.setting("rounds")
    try:
        demo = make_settings({"seed": seed, "rounds": rounds}).fields()
    except SettingsError:
        return other
    return other if differing_fields(demo, summary.settings) else f"selfedit demo --seed {seed} --rounds {rounds}"


@cache
def _environment() -> Environment:
    """The templates' environment: every expression is made plain and escaped, and an unknown name is an error."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else words.plain(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (words.count, words.decimal, words.direction, words.duration, words.interval, words.percent, words.points)
    named = (words.rung_group, words.rung_label, words.style_label)
    rounds = (table.round_figures, table.round_name, table.verdict_text)
    environment.globals |= {function.__name__: function for function in (*shown, *named, *rounds)}
    environment.globals |= {
        "arm_cells": arms.cells,
        "arm_columns": arms.COLUMNS,
        "rounds_legend": table.ROUNDS_LEGEND,
        "log_p_legend": table.LOG_P_LEGEND,
    }
    environment.globals |= {"arms_caption": arms.ARMS_CAPTION, "arms_legend": arms.ARMS_LEGEND}
    environment.filters["capitalised"] = lambda text: text[:1].upper() + text[1:]
    return environment


def _figure(wide: Any, narrow: Any) -> dict[str, Markup] | None:
    """A chart in two widths, as SVG; vl-convert escapes the texts in it itself."""
    return None if wide is None else {"wide": Markup(charts.svg(wide)), "narrow": Markup(charts.svg(narrow))}


def _is_short(arm: ArmRow) -> bool:
    """Whether the accuracy on each passage after each edit fits a page, as in SEAL's paper, and was measured."""
    n = len(arm.matrix)
    return 1 < n <= _LONGEST_MATRIX and n == max(map(int, arm.matrix))


def _example(example: Example) -> dict[str, Any]:
    """An example, the stages that have answers, and its probes with the answer at each stage (None: not asked there)."""
    stages = [stage for stage in example.stages if stage.answers]
    by_stage = [{answer.question: answer for answer in stage.answers} for stage in stages]
    gold: dict[str, str] = {}
    for stage in stages:
        for answer in stage.answers:
            gold.setdefault(answer.question, answer.gold)
    return {
        "of": example,
        "stages": [{"name": words.rung_label(s.rung), "right": words.right_of(s.answers)} for s in stages],
        "probes": [{"question": q, "gold": right, "answers": [a.get(q) for a in by_stage]} for q, right in gold.items()],
    }


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
