"""A run's report: one HTML file that opens anywhere, offline, without a script.

The charts are SVG that vl-convert drew beforehand, each in a wide and a narrow form; CSS shows the one that fits. What
a model wrote is untrusted: every text passes `markup.text` (control characters out, HTML escaped), and the page's
content policy forbids scripts and anything from outside, should a text ever get through.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import differing_fields, make_settings
from ..errors import DiskError, SettingsError
from .arms import streams_headline
from .charts import NARROW, WIDE, kinds_chart, ladder_chart, rounds_chart, styles_chart, svg
from .example import examples_html
from .markup import STYLE, figure, paragraph, section, table, text
from .streams import streams_html
from .table import ROUNDS_LEGEND, round_name, verdict_text
from .words import (
    Row,
    Summary,
    count,
    decimal,
    duration,
    headline,
    interval,
    number,
    percent,
    plain,
    points,
    reliability_line,
    rows,
    rung_group,
    rung_label,
)

_ONE = (
    "A language model read passages it had never seen, wrote its own training notes about them, was trained on those "
)
_TWO = "A language model read passages it had never seen and wrote training notes about them; another one was trained on those "
_ABOUT = (
    "notes, and was then asked questions without the passage; every change of its weights was reverted before the next "
    "passage. Reinforcement learning rewarded the notes that made it answer better, and the ladder below compares ways "
    "of preparing the model on the same held-out passages."
)
_TOGETHER = (
    "notes, those of many passages at once, and was then asked questions about all of them without the passages. The ladder "
    "below compares ways of preparing the model on the same held-out passages."
)
_STREAM = (
    "notes, one passage after another, and was asked questions about all passages so far without the passages. Ways of taking "
    "the stream in are compared by what is still known of the earlier passages at its end, and of what was known before it."
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(summary: Summary, path: Path) -> Path:
    """Write the report of a run to ``path``, whole or not at all. Raises `DiskError` where it can't be written."""
    page = report_html(summary)
    draft = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        message = f"{path}: the report can't be written ({error.strerror}); the run itself is kept"
        raise DiskError(message) from None
    return path


def report_html(summary: Summary) -> str:
    """The report as one HTML page."""
    title = f"selfedit run, seed {plain(summary.get('seed', '?'))}"
    return "\n".join(
        part
        for part in (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<header><h1>{text(title)}</h1>",
            paragraph(_about(summary)),
            paragraph(streams_headline(summary) or headline(summary), "lead"),
            "".join(paragraph(note, "note") for note in summary.get("notes") or []),
            "</header><main>",
            streams_html(summary),
            _ladder(summary),
            _writing(summary),
            _rounds(summary),
            _paired(summary),
            _record(summary),
            "</main></body></html>",
        )
        if part
    )


def _about(summary: Summary) -> str:
    """What was done, in a few sentences, by the protocol."""
    settings = summary.get("settings") or {}
    told = _TWO if settings.get("learner") else _ONE
    protocol = (settings.get("protocol") or {}).get("name")
    if protocol in ("continual", "stream"):
        return told + _STREAM
    return told + (_TOGETHER if protocol == "cpt" else _ABOUT)


def _chart(draw: Callable[[Summary, int], Any], summary: Summary, label: str) -> str:
    wide, narrow = draw(summary, WIDE), draw(summary, NARROW)
    return "" if wide is None else figure(svg(wide), svg(narrow), label)


def _fairness(summary: Summary) -> str:
    """What trained rungs have in common."""
    epochs = summary.get("settings", {}).get("inner", {}).get("epochs", 0)
    if not epochs:
        return "Every trained rung gets the same number of optimiser steps."
    return f"Every trained rung gets {epochs} epochs: more sequences take more steps (here their mean)."


def _ladder(summary: Summary) -> str:
    ladder = rows(summary, "ladder")
    if not ladder:
        return section("The ladder", paragraph("No rung was measured."))
    lines = [
        (
            f'{text(rung_label(str(row.get("rung", ""))))}<span class="soft mono">{text(row.get("rung", ""))}</span>',
            *(text(cell) for cell in (percent(row.get("accuracy")), interval(row), count(row.get("n_tasks")))),
            *(text(count(row.get(key))) for key in ("n_probes", "steps", "trained_tokens", "failed_edits")),
        )
        for row in ladder
    ]
    strong = [i for i, row in enumerate(ladder) if rung_group(str(row.get("rung", ""))) == "after RL"]
    headers = (
        "How the model was prepared",
        "Accuracy",
        "95 % interval",
        "Tasks",
        "Probes",
        "Steps",
        "Tokens a task",
        "Failed",
    )
    verbatim = number(summary.get("verbatim_share"))
    said = f" Probes found word for word in the notes: {percent(verbatim)}." if verbatim is not None else ""
    reading = (
        "Accuracy is the mean over tasks of the mean over their probes, asked without the passage (but for the open "
        f"book); bars show it with its 95 % interval. {_fairness(summary)} "
        "Failed: notes that could not be trained on; their tasks count as untrained. "
        "Ceilings have help that a model alone has not; taken apart: only one half of the RL model, its notes or its "
        f"learning.{said}"
    )
    return section(
        "The ladder",
        _chart(ladder_chart, summary, "Accuracy of each rung with its 95 % interval"),
        paragraph(reading, "small soft"),
        table(headers, lines, numeric=range(1, 8), strong=strong),
        _kinds(summary),
    )


def _kinds(summary: Summary) -> str:
    chart = _chart(kinds_chart, summary, "Accuracy by kind of probe for the key rungs")
    return f"<h3>By kind of probe</h3>\n{chart}" if chart else ""


def _writing(summary: Summary) -> str:
    chart = _chart(styles_chart, summary, "Share of each style of line in each round")
    told = "What its lines look like, judged by their form alone; nobody told it which form helps." if chart else ""
    return section(
        "What changed in what the model writes",
        paragraph(told, "small soft") if told else "",
        chart,
        examples_html(summary),
    )


def _rounds(summary: Summary) -> str:
    rounds = rows(summary, "rounds")
    if not rounds:
        return ""
    lines = []
    for row in rounds:
        guards = row.get("guards") or {}
        cells = (
            round_name(row),
            count(row.get("n_edits")),
            decimal(row.get("mean_reward")),
            percent(row.get("valid_share"), 0),
            percent(row.get("selected_share"), 0),
            percent(guards.get("dev_accuracy")),
            decimal(guards.get("kl")),
            percent(guards.get("retention")),
            decimal(guards.get("norm_ratio")),
            verdict_text(row),
        )
        lines.append([text(cell) for cell in cells])
    headers = ("Round", "Notes", "Reward", "Usable", "Kept", "Dev", "KL", "Known", "Norm", "Verdict")
    limits: Mapping[str, Any] = next(
        (row["guards"]["limits"] for row in rounds if (row.get("guards") or {}).get("limits")), {}
    )
    signal = reliability_line(summary.get("reliability") or {})
    told = "Limits: " + ", ".join(f"{name} {value}" for name, value in limits.items()) + "." if limits else ""
    return section(
        "Rounds and guards",
        _chart(rounds_chart, summary, "Mean reward and development accuracy of each round"),
        table(headers, lines, numeric=range(1, 9)),
        paragraph(signal) if signal else "",
        paragraph(f"{ROUNDS_LEGEND} A round over a limit is rolled back. {told}", "small soft"),
    )


def _paired(summary: Summary) -> str:
    pairs = rows(summary, "paired")
    if not pairs:
        return ""

    def verdict(row: Row) -> str:
        low, high = number(row.get("low")), number(row.get("high"))
        if low is None or high is None:
            return ""
        return "higher" if low > 0 else "lower" if high < 0 else "no difference shown"

    lines = [
        [
            f"{text(rung_label(str(row.get('a', ''))))} minus {text(rung_label(str(row.get('b', ''))))}"
            f'<span class="soft mono">{text(row.get("a", ""))} − {text(row.get("b", ""))}</span>',
            *(text(cell) for cell in (points(row.get("difference")), interval(row, sign=True), verdict(row))),
        ]
        for row in pairs
    ]
    return section(
        "Paired differences",
        paragraph("Percentage points on the same tasks, with 95 % bootstrap intervals over tasks.", "small soft"),
        table(("Difference", "Points", "95 % interval", ""), lines, numeric=(1, 2)),
    )


def _record(summary: Summary) -> str:
    """Settings, hashes, timing and the command: what it takes to check the run, or to run it again."""
    lines = [[text(name), f'<span class="mono">{text(value)}</span>'] for name, value in _facts(summary)]
    for name, whose in (("base", "Base"), ("learner", "Learner's")):
        before, after = summary.get(f"{name}_sha256_before"), summary.get(f"{name}_sha256_after")
        if not before or not after:
            continue
        same = '<span class="good">✓ unchanged</span>' if before == after else '<span class="bad">✗ CHANGED</span>'
        lines.append([f"{whose} weights, before and after", f'{same} <span class="mono">{text(before)}</span>'])
        if before != after:
            lines.append(["", f'<span class="mono">{text(after)}</span>'])
    timing = summary.get("timing") or {}
    stages = [[text(name), text(duration(seconds))] for name, seconds in (timing.get("stages") or {}).items()]
    if number(timing.get("total_seconds")) is not None:
        stages.append(["in all", text(duration(timing["total_seconds"]))])
    settings = summary.get("settings")
    flat = [[f'<span class="mono">{text(name)}</span>', text(value)] for name, value in _flat(settings or {})]
    command = reproduce_command(summary)
    return section(
        "To check it, and to run it again",
        f"<pre><code>{text(command)}</code></pre>" if command else "",
        table(("", ""), lines) if lines else "",
        f"<h3>Timing</h3>{table(('Stage', 'Time'), stages)}" if stages else "",
        f"<details><summary>All settings</summary>{table(('Setting', 'Value'), flat)}</details>" if flat else "",
    )


def _facts(summary: Summary) -> list[tuple[str, object]]:
    names = {"selfedit_version": "selfedit", "seed": "Seed", "settings_sha256": "Settings, SHA-256"}
    return [(label, summary[key]) for key, label in names.items() if summary.get(key) is not None]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for name, value in fields.items():
        flat += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return flat


def reproduce_command(summary: Summary) -> str:
    """The command that does this run again: ``demo`` for the demo's settings, else ``run`` on its config.toml."""
    settings = summary.get("settings")
    if not isinstance(settings, Mapping):
        return ""
    seed, rounds = settings.get("seed"), settings.get("rounds")
    try:
        demo = make_settings({"seed": seed, "rounds": rounds}).fields()
    except SettingsError:
        return "selfedit run config.toml --out runs/again"
    if not differing_fields(demo, dict(settings)):
        return f"selfedit demo --seed {seed} --rounds {rounds}"
    return "selfedit run config.toml --out runs/again"
