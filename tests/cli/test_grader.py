"""`selfedit grader`: report on graded answers, explain one; mistakes name file, line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfedit.cli.main import main
from selfedit.rewards.graded import title_hash
from selfedit.rewards.offline_grader import Grader, load_grader

ROW = {
    "title": "Jane Austen, a title of no article",
    "question": "Who wrote Emma?",
    "gold": "Jane Austen",
    "prediction": "Jane Austen.",
    "correct": True,
}


@pytest.fixture(autouse=True)
def _wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def write(*rows: dict[str, Any]) -> Path:
    path = Path("graded.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main(["grader", *command]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def test_report_measures_writes_and_says_what_weighs_most(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ROW | {"prediction": "It was written by Charles Dickens in London.", "correct": False}
    data = write(ROW, wrong, wrong | {"correct": True})
    assert main(["grader", "report", "--data", str(data), "--json", "out.json"]) == 0
    figures = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert set(figures) == {"agreement", "kappa", "n", "low", "high", "n_excluded"}
    assert (figures["agreement"], figures["n"], figures["n_excluded"]) == (0.6667, 3, 0)
    shown = capsys.readouterr().out
    assert "agreement with the judge" in shown
    assert "0.667" in shown
    assert "decided by a rule" in shown
    assert all(name in shown for name in load_grader().table)


def test_titles_of_the_calibration_are_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    grader = load_grader()
    known = Grader(**{**grader.__dict__, "titles": frozenset({title_hash("known")})})
    monkeypatch.setattr("selfedit.rewards.offline_grader.load_grader", lambda: known)
    data = write(ROW, ROW | {"title": "known"}, ROW | {"title": "known", "correct": False})
    assert main(["grader", "report", "--data", str(data), "--json", "out.json"]) == 0
    figures = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert (figures["agreement"], figures["n"], figures["n_excluded"]) == (1, 1, 2)
    error = refused(capsys, "report", "--data", str(write(ROW | {"title": "known"})))
    assert "graded.jsonl: the grader was calibrated on the titles of all 1 answers; give answers on other titles" in error


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "graded.jsonl: the file is empty; write one object per line"),
        ("{", "graded.jsonl, line 1: the JSON breaks at column"),
        ("[]", "graded.jsonl, line 1: expected an object, found a list"),
        ("\n{}", "graded.jsonl, line 2, title: the field is missing"),
        (
            json.dumps(ROW) + "\n" + json.dumps(ROW | {"correct": 1}),
            "line 2, correct: expected true or false, found a number",
        ),
        (json.dumps(ROW | {"prediction": None}), "line 1, prediction: expected text, found null"),
        (json.dumps(ROW | {"question": " "}), "line 1, question: the text is empty"),
        (json.dumps({k: v for k, v in ROW.items() if k != "correct"}), "line 1, correct: the field is missing"),
    ],
)
def test_bad_data_are_refused_with_file_line_and_field(capsys: pytest.CaptureFixture[str], lines: str, message: str) -> None:
    Path("graded.jsonl").write_text(lines, encoding="utf-8")
    assert message in refused(capsys, "report", "--data", "graded.jsonl")


def test_a_file_that_is_not_there_or_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'absent.jsonl' can't be opened" in refused(capsys, "report", "--data", "absent.jsonl")
    error = refused(capsys, "report", "--data", str(write(ROW)), "--json", "no/such/folder.json")
    assert "no/such/folder.json: can't be written" in error


def test_an_empty_prediction_is_data_and_not_a_mistake() -> None:
    assert main(["grader", "report", "--data", str(write(ROW | {"prediction": "", "correct": False}))]) == 0


def test_explain_shows_verdict_probability_and_what_spoke_for_and_against(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["grader", "explain", "--question", "Who wrote Emma?", "--gold", "Jane Austen", "--answer"]
    assert main([*asked, "Emma was written by Jane Austen in 1815."]) == 0
    shown = capsys.readouterr().out
    grade = load_grader().grade("Who wrote Emma?", ["Jane Austen"], "Emma was written by Jane Austen in 1815.")
    assert shown.startswith(f"right  probability {grade.probability:.3f}")
    assert grade.reasons[0].feature in shown
    assert f"{grade.reasons[0].points:+.2f}" in shown
    assert main([*asked, ""]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("wrong")
    assert "A rule decided: the answer has no words." in shown
    assert main([*asked[:-3], "--gold", "15", "--answer", "1.5"]) == 0
    assert "A rule decided: the answer lacks 15." in capsys.readouterr().out
    assert "--gold is empty" in refused(capsys, "explain", "--question", "Who?", "--gold", "", "--answer", "x")


def test_a_grade_is_explained_to_programs_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["grader", "explain", "--question", "Who wrote Emma?", "--gold", "Jane Austen", "--answer"]
    assert main([*words, "It was Austen.", "--json-lines"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {*told} == {"probability", "right", "rule", "base", "reasons"}
    assert {*told["reasons"][0]} == {"feature", "value", "points"} if told["reasons"] else told["rule"]
