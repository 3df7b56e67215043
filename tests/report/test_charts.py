from __future__ import annotations

from pathlib import Path

import pytest
from sample_summary import full, full_summary, minimal

from selfedit.report.charts import kinds_chart, ladder_chart, rounds_chart, save, styles_chart, svg


def test_what_was_not_measured_is_not_drawn() -> None:
    empty = minimal(ladder=[])
    for draw in (ladder_chart, rounds_chart, styles_chart, kinds_chart):
        assert draw(empty) is None
    ungraded = {**full_summary()["ladder"][0], "accuracy": None, "low": None, "high": None}
    assert ladder_chart(minimal(ladder=[ungraded])) is None
    assert rounds_chart(minimal()) is None


def test_a_chart_takes_the_pages_text_colour_and_has_no_ids_that_could_clash() -> None:
    for draw in (ladder_chart, rounds_chart, styles_chart, kinds_chart):
        drawn = svg(draw(full()))
        assert 'fill="currentColor"' in drawn
        assert ' id="' not in drawn
        assert 'fill="#000"' not in drawn


def test_a_chart_can_be_saved_for_documents(tmp_path: Path) -> None:
    drawn = ladder_chart(full())
    assert save(drawn, tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")
    assert save(drawn, tmp_path / "ladder.svg").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        save(drawn, tmp_path / "ladder.pdf")
    with pytest.raises(ValueError, match="no measured accuracy"):
        save(ladder_chart(minimal(ladder=[])), tmp_path / "ladder.png")


def test_a_rung_on_fewer_tasks_says_so_in_its_label():
    ladder = full_summary()["ladder"]
    ladder[4]["n_tasks"] = 7
    drawn = svg(ladder_chart(full(ladder=ladder)))
    assert "(7 tasks)" in drawn
    assert "(60 tasks)" not in drawn
