from __future__ import annotations

import itertools
import json
import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from sample_summary import HOSTILE, full_summary, minimal_summary, round_row

from selfedit.cli.progress import ConsoleView, print_json
from selfedit.cli.running import choose_view

ANSWERS = [
    {"question": "Where was Mara born?", "gold": "Oskarstad", "text": "Oskarstad", "correct": True},
    {"question": "Who was born in Oskarstad?", "gold": "Mara", "text": "\x1b[31mTorven", "correct": False},
]
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("plan", {"lines": ["2 rounds x 24 passages"], "inner_loops": 240, "estimated_seconds": 420.0}),
    ("passage", {"context": f"Mara was born in Oskarstad. {HOSTILE}", "question_count": 8}),
    ("stage", {"name": "base", "text": "Testing the base without self-edits", "total": 10}),
    ("progress", {"name": "base", "done": 4}),
    ("progress", {"name": "base/part-2", "done": 6}),
    ("edit", {"when": "before", "rung": "base_edits", "lines": ["It is \x1b[2Jknown."], "answers": ANSWERS}),
    ("stage", {"name": "round-1", "text": "Writing and trying self-edits", "total": 120}),
    ("progress", {"name": "base", "done": 1}),
    ("round", round_row(1)),
    ("round", round_row(3)),
    (
        "edit",
        {"when": "after", "rung": "round_1", "lines": ["A fact."], "answers": ANSWERS * 10},
    ),
    ("rung", {"rung": "round_1", "accuracy": 0.4, "low": 0.3, "high": 0.5}),
    ("warning", {"text": "one judge failed"}),
    ("done", {"summary": full_summary(), "directory": "runs/demo-seed-3"}),
]


def shown(events: list[tuple[str, dict[str, Any]]], terminal: bool = False, width: int = 80) -> str:
    stream = StringIO()
    ticks = itertools.count()
    console = Console(file=stream, width=width, force_terminal=terminal, highlight=False, legacy_windows=False)
    with ConsoleView(console, clock=lambda: float(next(ticks))) as view:
        for kind, data in events:
            view(kind, data)
    return stream.getvalue()


def test_a_run_is_shown_in_plain_words() -> None:
    text = shown(EVENTS, width=120)
    for words in (
        "Total: 240 inner loops, about 7 min 0 s.",
        "Testing the base without self-edits ...",
        "4 of 10",
        "done in",
        "- A fact.",
        "✓ Where was Mara born?",
        "(right: Mara)",
        "and 8 more",
        "Of the differences in reward (the log-likelihood",
        "Round 3: mean reward 0.450",
        "rolled back: KL to the base",
        "self-edits, RL round 1: 40.0 % (30.0 to 50.0)",
        "Warning: one judge failed",
        "How the model was prepared",
        "Report: runs/demo-seed-3/report.html",
    ):
        assert words in text


def test_progress_counts_what_is_new_and_never_beyond_the_total() -> None:
    events = [("stage", {"name": "a", "text": "A", "total": 100}), *[("progress", {"name": "a", "done": 30})] * 9]
    lines = [line.strip() for line in shown(events).splitlines()]
    assert [line for line in lines if " of 100" in line] == ["30 of 100", "60 of 100", "90 of 100"]


def test_output_that_is_no_terminal_has_no_control_codes() -> None:
    text = shown(EVENTS)
    assert "\x1b" not in text
    assert "\r" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_a_terminal_gets_a_live_view_and_no_codes_of_the_model() -> None:
    text = shown(EVENTS, terminal=True)
    assert "\x1b[?25h" in text  # the cursor is given back
    assert "\x1b[2J" not in text
    assert "✓" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_events_may_come_in_any_order_and_with_anything_missing(terminal: bool) -> None:
    shown(list(reversed(EVENTS)), terminal)
    shown([(kind, {}) for kind, _ in EVENTS], terminal)
    shown([("progress", {"name": "never started", "done": 3}), ("unheard of", {"x": 1})], terminal)
    shown([("stage", {"name": "a", "text": "A", "total": 0}), ("progress", {"name": "a", "done": 5})] * 3, terminal)
    shown([("done", {"summary": minimal_summary(), "directory": "x"})] * 2, terminal)


def test_a_summary_that_can_not_be_read_is_a_warning_and_not_the_end_of_a_run() -> None:
    text = shown([("done", {"summary": {"ladder": []}}), ("pooled", {"seeds": 3})], width=200)
    assert text.count("Warning: the summary: not a summary") == 2


def test_a_view_gives_the_terminal_back_when_a_run_fails() -> None:
    stream = StringIO()
    console = Console(file=stream, width=80, force_terminal=True, legacy_windows=False)

    def run() -> None:
        with ConsoleView(console) as view:
            view("stage", {"name": "a", "text": "A", "total": 3})
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run()
    assert stream.getvalue().rstrip("\n").endswith("\x1b[?25h")
    assert "✓ A" not in stream.getvalue()  # a stage that failed is not ticked off


def test_a_run_that_was_finished_before_shows_its_passage_too() -> None:
    text = shown([("done", {"summary": full_summary(), "directory": "x"})], width=120)
    assert "An example, one passage of the run" in text
    assert "The model's self-edit about that passage (self-edits, before RL)" in text
    assert "3 of 4 right" in text


def test_edits_that_were_not_tried_or_not_graded_are_counted() -> None:
    text = shown([("round", {**round_row(1), "n_ungraded": 3, "n_screened": 80})], width=200)
    assert "(3 self-edits could not be graded, 80 self-edits not tried)" in text
    assert "graded" not in shown([("round", {**round_row(1), "n_ungraded": 0, "n_screened": 0})], width=200)


def test_an_edit_is_shown_with_its_own_passage() -> None:
    """The first passage's answers could not be graded: the summary's example is about another one."""
    text = shown([("passage", {"context": "Another passage."}), ("done", {"summary": full_summary(), "directory": "x"})])
    assert text.count("An example, one passage of the run") == 2
    assert text.index("The model's self-edit about that passage") > text.rindex("An example, one passage")


def test_json_is_one_strict_object_a_line() -> None:
    stream = StringIO()
    more = ("round", {"mean_reward": float("nan"), "text": "two\nlines \ud800", "path": object})
    for kind, data in [*EVENTS, more]:
        print_json(kind, data, stream)
    lines = stream.getvalue().splitlines()
    objects = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [o["event"] for o in objects] == [kind for kind, _ in EVENTS] + ["round"]
    assert objects[-1]["data"]["mean_reward"] is None
    assert stream.getvalue().isascii()


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_whoever_wants_colours_in_a_file_gets_no_bars_that_move(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "1")
    with choose_view(json_lines=False) as view:
        for kind, data in EVENTS:
            view(kind, data)
    text = capsys.readouterr().out
    assert "Testing the base without self-edits ..." in text
    assert "\x1b[1m" in text  # what they asked for
    assert not re.findall(r"\x1b\[(?:\d*[A-HJK]|\?25[lh])|\r", text)
