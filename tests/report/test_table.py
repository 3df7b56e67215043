from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console, RenderableType
from sample_summary import full, full_summary, minimal

from selfedit.report.table import LadderTable, bar, paired_table, rounds_table
from selfedit.report.words import rung_label
from selfedit.summary import Summary


def rendered(renderable: RenderableType, width: int, terminal: bool = False) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, highlight=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def tables(summary: Summary) -> list[RenderableType]:
    return [LadderTable(summary), paired_table(summary), rounds_table(summary)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("summary", [full(), minimal(), minimal(ladder=[])])
def test_no_table_is_wider_than_the_screen(summary: Summary, width: int) -> None:
    for table in tables(summary):
        assert max(len(line.rstrip()) for line in rendered(table, width).splitlines()) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_every_rung_is_one_whole_line_of_the_ladder(width: int) -> None:
    lines = rendered(LadderTable(full()), width).splitlines()
    rungs = full().ladder
    for row, line in zip(rungs, lines[1 : len(rungs) + 1], strict=True):
        assert line.startswith(f"{rung_label(row.rung)} ")
        assert (row.rung in line) == (width == 120)  # its name in the settings
        assert f"{100 * row.accuracy:.1f} %" in line
        assert f"{row.logprob:.2f}" in line.split()
    shown = " ".join("\n".join(lines).split())
    for whole in ("34.2 to 46.2", "89.3 to 100.0", "1,248,512", "self-edits, RL round 1 (24)"):  # fewer tasks
        assert whole in shown
    assert "…" not in shown


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_rung_is_wrapped_and_nothing_of_it_is_lost(width: int, ascii_only: bool) -> None:
    ladder = full_summary()["ladder"]
    ladder[0]["rung"] = "_".join(["a", *["very"] * 20, "long_name"])
    ladder[0]["trained_tokens"] = 123_456_789_012
    console = Console(file=_Ascii() if ascii_only else StringIO(), width=width, highlight=False)
    console.print(LadderTable(minimal(ladder=ladder)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.isascii() or not ascii_only
    assert "123,456,789,012" in shown
    assert shown.count("very") >= 20
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width


class _Ascii(StringIO):
    encoding = "ascii"


def test_pairs_are_named_as_in_the_ladder() -> None:
    lines = rendered(paired_table(full()), 80).splitlines()
    assert lines[1].split("  ")[0] == "self-edits, RL round 2 minus self-edits, before RL"
    assert len(lines) == 5  # a header, three pairs, and what a row is


def test_rounds_show_what_was_rolled_back_and_why() -> None:
    shown = " ".join(rendered(rounds_table(full()), 120).split())
    assert "rolled back: KL to the base 0.61 is over its limit 0.5" in shown


def test_text_of_a_model_reaches_a_terminal_without_its_control_codes() -> None:
    for name, shown in (("\x1b[31mred", "[31mred"), ("[bold]", "[bold]")):
        ladder = [{**full_summary()["ladder"][0], "rung": name}]
        text = rendered(LadderTable(minimal(ladder=ladder)), 80)
        assert shown in text
        assert "\x1b" not in text


def test_a_bar_is_always_as_wide_as_its_column() -> None:
    for share in (-1.0, 0.0, 0.01, 0.5, 0.999, 1.0, 7.0):
        assert len(bar(share, 12)) == len(bar(share, 12, ascii_only=True)) == 12
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4, ascii_only=True) == "##.."
