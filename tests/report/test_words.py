from __future__ import annotations

import pytest
from sample_summary import full, full_summary, minimal

from selfedit.report.words import (
    count,
    duration,
    headline,
    interval,
    percent,
    plain,
    reliability_line,
    rung_group,
    rung_label,
)


def test_text_of_a_model_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in plain("\x1b[2Jgone\x07\r\n\x9b31m")
    assert plain("two\nlines\tand\u2028more") == "two lines and more"
    assert plain("right\u202eto left") == "rightto left"
    plain("\ud800").encode("utf-8")


def test_ordinary_text_is_kept() -> None:
    assert plain("Ørsted said: “naïve” 日本 ✓") == "Ørsted said: “naïve” 日本 ✓"


@pytest.mark.parametrize("value", [None, "x", float("nan"), float("inf"), True])
def test_what_was_not_measured_is_shown_as_missing_and_not_as_zero(value: object) -> None:
    assert percent(value) == "–"
    assert interval(value, 0.5) == "–"


def test_numbers_are_said_plainly() -> None:
    assert percent(0.1234) == "12.3 %"
    assert count(1248512) == "1,248,512"
    assert [duration(s) for s in (3.21, 42, 131, 3599, 7500)] == [
        "3.2 s",
        "42 s",
        "2 min 11 s",
        "59 min 59 s",
        "2 h 5 min",
    ]


def test_rungs_have_plain_names() -> None:
    assert rung_label("round_2") == "self-edits, RL round 2"
    assert rung_label("something_new") == "something new"
    assert rung_group("rl_edits_base_learner") == "ablation"
    assert rung_group("in_context") == "ceiling"


def test_headline_claims_no_more_than_its_interval() -> None:
    def said(**bounds: float) -> str:
        first, *others = full_summary()["paired"]
        return headline(full(paired=[first | bounds, *others]))

    assert said().endswith("+17.1 points (95 % interval +9.2 to +25.1): a gain.")
    assert "no difference is shown" in said(low=-0.01)
    assert said(low=-0.2, high=-0.1).endswith("a loss.")
    assert "difference" not in headline(full(paired=[]))
    assert headline(minimal()) == ""


def test_how_much_of_the_reward_is_signal_is_said_in_a_sentence() -> None:
    assert reliability_line(0.617, 3, "gain") == (
        "Of the differences in reward between edits of the same passage, about 62 % is signal and the rest is seed noise; "
        "3 seeds per edit would make it 80 %."
    )
    likely = reliability_line(0.9, 1, "logprob")
    assert "log-likelihood of the right answers" in likely
    assert likely.endswith("the rest is seed noise.")  # it is 80 % already
    for share in (-0.2, 0.0):
        assert "no larger than the noise" in reliability_line(share, None)
    assert reliability_line(None, None) == ""
