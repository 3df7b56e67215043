from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType
from sample_summary import card_rows, full_summary, minimal_summary

from selfedit.report.table import bar, card_table, ladder_table, paired_table, rounds_table


def rendered(renderable: RenderableType, width: int, terminal: bool = False) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, highlight=False)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def tables(summary: dict[str, Any]) -> list[RenderableType]:
    return [ladder_table(summary), paired_table(summary), rounds_table(summary), card_table(card_rows())]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("summary", [full_summary(), minimal_summary(), {}])
def test_no_table_is_wider_than_the_screen(summary: dict[str, Any], width: int) -> None:
    for table in tables(summary):
        assert max(len(line.rstrip()) for line in rendered(table, width).splitlines()) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_the_ladder_shows_every_rung_whole(width: int) -> None:
    shown = rendered(ladder_table(full_summary()), width)
    for row in full_summary()["ladder"]:
        assert row["rung"] in shown
    for whole in ("own notes, after RL round 2", "40.2 %", "34.2 to 46.2", "1,248,512"):
        assert whole in shown
    assert "…" not in shown
    assert "round_1 24" in shown  # fewer tasks are told


def test_rounds_show_what_was_rolled_back_and_why() -> None:
    shown = " ".join(rendered(rounds_table(full_summary()), 120).split())
    assert "rolled back: KL to the base 0.61 is over its limit 0.5" in shown


def test_a_card_shows_missed_rows() -> None:
    shown = rendered(card_table(card_rows()), 120)
    assert "✗ missed" in shown
    assert "1 of 2 rows missed." in shown


def test_text_of_a_model_reaches_a_terminal_without_its_control_codes() -> None:
    row = {"rung": "\x1b[31mred", "accuracy": 0.5}
    assert "\x1b" not in rendered(ladder_table({"ladder": [row]}), 80)
    assert "[bold]" in rendered(ladder_table({"ladder": [{"rung": "[bold]", "accuracy": 0.5}]}), 80)


def test_a_bar_is_always_as_wide_as_its_column() -> None:
    for share in (-1.0, 0.0, 0.01, 0.5, 0.999, 1.0, 7.0):
        assert len(bar(share, 12)) == len(bar(share, 12, ascii_only=True)) == 12
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4, ascii_only=True) == "##.."
