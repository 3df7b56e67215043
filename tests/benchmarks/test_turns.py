"""Sides that take turns, and the ratios that follow."""

from __future__ import annotations

import pytest

from benchmarks.turns import quotients, take_turns


def test_sides_take_turns_forwards_and_backwards() -> None:
    order: list[str] = []
    raw = take_turns({n: lambda n=n: float(order.append(n) or len(order)) for n in "abc"}, 3, once=("b",))
    assert "".join(order) == "abc" + "ca" + "ac"
    assert raw == {"a": [1, 5, 6], "b": [2], "c": [3, 4, 7]}


def test_a_ratio_is_the_median_of_the_repetitions_own() -> None:
    raw = {"lean": [8.0, 9.0, 12.0], "once": [6.0], "engine 1": [9.0, 9.0, 9.0], "engine 8": [2.0, 3.0, 3.0]}
    found = quotients(raw, (1, 8), ("lean", "once", "absent"))
    assert found["best_k"] == 8
    assert found["ratios"] == {"lean": 4.0, "once": 3.0, "absent": None}
    assert found["seconds_per_edit"]["engine"] == {"1": 9.0, "8": pytest.approx(3.0)}
