"""The base's card: a missed row is shown, and every row is in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.base import check


def row(skill: str, accuracy: float, wanted: float, ok: bool, **shortcuts: float) -> dict[str, Any]:
    common = {"family": "e1", "probe": "direct", "low": 0.1, "high": 0.97, "n": 200}
    return common | {"skill": skill, "accuracy": accuracy, "wanted": wanted, "ok": ok, "shortcuts": shortcuts}


def test_a_missed_row_is_shown_and_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = [row("in_context", 0.94, 0.9, True, first=0.33), row("closed_book_unseen", 0.2, 0.08, False)]
    monkeypatch.setattr(check, "measure", lambda model, n: card)
    monkeypatch.setenv("COLUMNS", "80")
    check.main(["--json", str(tmp_path / "card.json")])
    assert json.loads((tmp_path / "card.json").read_text()) == card
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["e1", "direct", "94.0", "(10.0", "to", "97.0)", ">=", "90", "ok", "–/33/–/–"] in lines
    assert ["e1", "direct", "20.0", "(10.0", "to", "97.0)", "<=", "8", "missed", "–/–/–/–"] in lines
    assert "1 of 2 rows missed.".split() in lines


def test_a_shortcut_is_never_better_than_knowing_and_a_probe_has_one_passage() -> None:
    for asked in check.reading_probes("dev", "e2", "reversed", 20):
        assert asked.probe.answer in asked.text
        assert set(asked.shortcuts) == {"category", "first", "last", "most_frequent"}
        assert all(0.0 <= share <= 1.0 for share in asked.shortcuts.values())
    assert not any(asked.text for asked in check.reading_probes("dev", "e1", "direct", 5, with_passage=False))
