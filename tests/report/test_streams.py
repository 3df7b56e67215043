"""How streams are shown: every number of an arm, untrusted names, and nothing where there is no stream."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from sample_summary import arm, full, full_summary

from selfedit.report.arms import arms_table, streams_headline
from selfedit.report.charts import streams_chart
from selfedit.report.html import report_html
from selfedit.summary import Summary

ARMS = {
    "plain": arm("sum", 0.81, 0.093),
    "<b>best</b>": arm("sum", 0.77, 0.615),
    "routed": arm("routed", 0.9, 0.88),
}


def stream(arms: dict[str, Any] = ARMS) -> Summary:
    settings = {**full_summary()["settings"], "protocol": {"name": "stream"}}
    return full(settings=settings, arms=arms, no_update=0.01, single=0.85, in_context=0.97)


def shown(summary: Summary, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(arms_table(summary))
    return console.export_text().splitlines()


def test_the_headline_names_the_merged_arm_that_retains_most_and_the_plain_one() -> None:
    text = streams_headline(stream())
    assert "the arm <b>best</b> answers 61.5 % and the arm plain answers 9.3 %" in text
    assert "Without any edit the model answers 1.0 %; with each passage's edit learned alone, 85.0 %" in text
    assert "88" not in text  # routed edits are not merged
    fewer = ARMS | {"plain": arm("sum", 0.8, 0.99, seeds=1), "<b>best</b>": arm("sum", 0.77, 0.615, seeds=2)}
    assert "plain" not in streams_headline(stream(fewer))  # of other passages
    assert streams_headline(stream({"routed": arm("routed", 0.9, 0.88), "broken": arm("sum", 0.9, None)})) == ""


def test_a_page_has_every_arm_with_its_numbers_in_the_table_of_its_kind() -> None:
    page = report_html(stream())
    assert "<b>best</b>" not in page
    assert "&lt;b&gt;best&lt;/b&gt;" in page
    merged, routed = page.split("Edits merged into one model")[1].split("Edits kept separate")[:2]
    assert "9.3 %" in merged
    assert "61.5 %" in merged
    assert "88.0 %" not in merged
    assert "88.0 %" in routed.split("</table>")[0]
    for words in ("98 → 42 %", "2 accepted, 1 scaled", "after edit 3", "-12.3 points"):
        assert words in page
    assert "every change of its weights was undone" not in page


def test_a_long_stream_has_no_matrix_and_a_run_no_stream() -> None:
    assert "after edit" not in report_html(stream({"plain": arm("sum", 0.8, 0.1, n=20)}))
    assert streams_chart(full()) is None
    assert "The stream" not in report_html(full())


def test_a_terminal_shows_one_line_per_arm() -> None:
    lines = shown(stream(), 90)
    assert [line.split()[0] for line in lines[1:4]] == list(ARMS)
    assert "61.5 %" in lines[2]
    assert "3/3" in lines[2]
    assert "not accepted as they are: plain 1 scaled; <b>best</b> 1 scaled; routed 1 scaled." in " ".join(" ".join(lines).split())


def test_eighty_columns_cut_nothing_off() -> None:
    wide = {"mean": 1.0, "low": 0.887, "high": 0.930}
    figures = {"general_before": 1.0, "general_after": 1.0, "trained_tokens": 17358.0, "retained_share": wide}
    more = figures | {
        "decisions": {"accepted": 100, "invalid": 200},
        "intervals": {"immediate": None, "retained": wide},
    }
    lines = shown(stream({"consolidated": arm("sum", 0.8, 0.1, n=20, **more)}), 80)
    told = "consolidated 80.0 % 10.0 % 88.7 to 93.0 100 % 100 → 100 % 17,358 100/300"
    assert lines[1].split() == told.split()
    assert "consolidated 200 invalid." in " ".join(" ".join(lines).split())
