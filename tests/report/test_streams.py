"""How streams are shown: every number of an arm, untrusted names, and nothing where there is no stream."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from sample_summary import full_summary

from selfedit.report.arms import arms_table, streams_headline
from selfedit.report.html import report_html
from selfedit.report.streams import streams_chart, streams_html


def arm(merge: str, immediate: float, retained: float | None, n: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "merge": merge,
        "immediate": immediate,
        "retained": retained,
        "retained_share": {"mean": 0.5, "low": 0.4, "high": 0.6},
        "backward_transfer": {"mean": -0.123, "low": -0.2, "high": -0.1},
        "general_before": 0.98,
        "general_after": 0.42,
        "decisions": {"accepted": 2, "scaled": 1, "rejected": 0},
        "matrix": {str(k): [0.25] * k for k in range(1, n + 1)},
        **more,
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    arms = {
        "plain": arm("sum", 0.81, 0.093),
        "<b>best</b>": arm("sum", 0.77, 0.615),
        "routed": arm("routed", 0.9, 0.88),
    }
    made = full_summary()
    made["settings"] = {**made["settings"], "protocol": {"name": "stream"}}
    return {**made, "arms": arms, "no_update": 0.01, "single": 0.85, "in_context": 0.97}


def test_the_headline_names_the_merged_way_that_keeps_most_and_the_plain_one(summary):
    told = streams_headline(summary)
    assert "<b>best</b> keeps 61.5 % and plain keeps 9.3 %" in told
    assert "nothing learned: 1.0 %; each passage alone: 85.0 %" in told
    assert "88" not in told  # routed edits are another thing
    summary["arms"] = {"routed": arm("routed", 0.9, 0.88), "broken": arm("sum", 0.9, None)}
    assert streams_headline(summary) == ""


def test_a_page_has_every_arm_with_its_numbers_in_the_table_of_its_kind(summary):
    page = report_html(summary)
    assert "<b>best</b>" not in page
    assert "&lt;b&gt;best&lt;/b&gt;" in page
    merged, routed = page.split("Edits merged into one model")[1].split("kept apart, and routed")[:2]
    assert "9.3 %" in merged
    assert "61.5 %" in merged
    assert "88.0 %" not in merged
    assert "88.0 %" in routed.split("</table>")[0]
    for told in ("98 → 42 %", "2 accepted, 1 scaled", "after edit 3", "-12.3 points"):
        assert told in page
    assert "every change of its weights was reverted" not in page.lower()


def test_a_long_stream_has_no_matrix_and_a_run_no_stream(summary):
    summary["arms"] = {"plain": arm("sum", 0.8, 0.1, n=20)}
    assert "after edit" not in streams_html(summary)
    assert streams_html(full_summary()) == ""
    assert streams_chart(full_summary()) is None
    assert "The stream" not in report_html(full_summary())


def test_a_terminal_shows_the_arms(summary):
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(arms_table(summary))
    shown = console.export_text()
    assert [name for name in ("plain", "<b>best</b>", "routed") if name in shown] == list(summary["arms"])
    assert "61.5 %" in shown


def test_eighty_columns_cut_nothing_off(summary):
    name, wide = "consolidated", {"mean": 0.95, "low": 0.887, "high": 0.930}
    summary["arms"] = {name: arm("sum", 0.8, 0.1, n=20) | {"general_before": 1.0, "general_after": 1.0}}
    summary["arms"][name] |= {"trained_tokens": 17358, "decisions": {"accepted": 100, "invalid": 200}}
    summary["arms"][name] |= {"intervals": {"retained": wide}, "retained_share": {**wide, "mean": 1.0}}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(arms_table(summary))
    shown = console.export_text().split()
    assert {name, "93.0", "accepted,", "200", "invalid", "17,358", "Edits"} <= set(shown)
