from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_round import completion, made_up_round, mean_only

from selfedit.cli.main import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def imported(record: dict[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """What `import-round` writes of a round: its choice and its report."""
    Path("round.json").write_text(json.dumps(record))
    assert main(["import-round", "round.json", "--select", "best.jsonl", "--json", "report.json"]) == 0
    rows = [json.loads(line) for line in Path("best.jsonl").read_text(encoding="utf-8").splitlines()]
    return rows, json.loads(Path("report.json").read_text())


def test_each_passages_best_edit_is_chosen_of_equals_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    rows, report = imported(made_up_round())
    assert rows == [
        {"prompt": "List: Mara is here.\n", "completion": "a"},  # as good as the second, and before it
        {"prompt": "List: Ørsted.\n", "completion": "e\n2"},
    ]
    assert "Ørsted" in Path("best.jsonl").read_text(encoding="utf-8")
    assert (report["n_tasks"], report["n_edits"]) == (2, 5)
    assert report["seeds"] == pytest.approx((3 * 2 + 2) / 5)
    assert report["winners_without_gain"] == 0.5  # the second winner answers as the base does
    assert report["mean_accuracy"] == pytest.approx(((0.5 + 0.5 + 0.16665) / 3 + 0.25) / 2)
    assert report["best_of_k_accuracy"] == 0.5
    assert report["reliability"] is not None
    out = capsys.readouterr().out
    for words in ("2 passages, 5 self-edits", "50 % of the best edits are no better than no edit", "in reward between"):
        assert words in out


def test_a_sums_rounding_does_not_choose_between_equals() -> None:
    record = made_up_round()
    # One right, none, two of three: in this order and in another the floats' sums differ.
    orders = ("111 000 110 100", "100 110 000 111", "110 111 100 000")
    record["articles"][0]["completions"] = [completion(text, o) for text, o in zip("xyz", orders, strict=True)]
    assert imported(record)[0][0]["completion"] == "x"


def test_less_than_the_logs_rounding_is_no_gain() -> None:
    record = made_up_round()
    # A third right before and after: .6667 + .3333 + 0 over 3 is more than .3333, but only by its rounding.
    record["articles"] = [record["articles"][0] | {"completions": [completion("x", "110 100 000", "100 100 100")]}]
    assert imported(record)[1]["winners_without_gain"] == 1.0


def test_what_was_not_logged_is_null() -> None:
    record = made_up_round()
    for article in record["articles"]:
        article["completions"] = [completion(c["text"], "10") for c in article["completions"]]
    report = imported(record)[1]
    for name in ("reliability", "var_within", "winners_without_gain", "seeds_for_80"):
        assert report[name] is None
    assert report["var_between_observed"] == 0.0
    assert report["seeds"] == 1


def test_a_round_that_was_never_evaluated_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    record = made_up_round()
    for article in record["articles"]:
        article["completions"] = [{"text": "x", "questions": []}, {"text": "y", "questions": [], "stats": {"adapter_mean": None}}]
    Path("round.json").write_text(json.dumps(record))
    assert main(["import-round", "round.json", "--select", "best.jsonl", "--json", "report.json"]) == 2
    assert "round.json: none of the 4 self-edits was evaluated" in capsys.readouterr().err
    assert not list(Path().glob("*.json*l")) + list(Path().glob("report*"))


def test_a_round_of_means_alone_is_ranked_by_them(capsys: pytest.CaptureFixture[str]) -> None:
    record = made_up_round()
    record["articles"][0]["completions"] = [mean_only("a", 0.2, 0.5), mean_only("b", 0.6, 0.5), mean_only("c", 0.6, 0.5)]
    record["articles"][1]["completions"] = [mean_only("d", 0.0, 0.5), mean_only("e", 0.1, 0.5)]
    rows, report = imported(record)
    assert [row["completion"] for row in rows] == ["b", "e"]
    assert (report["seeds"], report["reliability"], report["n_tasks_without_choice"]) == (None, None, 0)
    assert report["winners_without_gain"] == 0.5
    assert report["best_of_k_accuracy"] == pytest.approx(0.35)
    assert "2 passages, 5 self-edits, of which only mean accuracies are logged." in capsys.readouterr().out


def test_means_that_differ_in_the_last_bit_alone_are_no_tie() -> None:
    record = made_up_round()
    first, second = 0.7666666666666666, 0.7666666666666667
    for article in record["articles"]:  # .2 taken from each, they are equal
        article["completions"] = [mean_only("a", first, 0.2), mean_only("b", second, 0.2), mean_only("c", second, 0.2)]
    assert first - 0.2 == second - 0.2
    assert [row["completion"] for row in imported(record)[0]] == ["b", "b"]


def test_the_stored_mean_ranks_before_what_the_answers_give() -> None:
    record = made_up_round()
    answered = [completion(text, "100 100", "000 000") for text in "xyz"]
    for item, mean in zip(answered, (0.3333, 0.3333333333333333, 0.3333333333333333), strict=True):
        item["stats"] = {"adapter_mean": mean}
    record["articles"][0]["completions"] = answered
    assert imported(record)[0][0]["completion"] == "y"


def test_passages_without_an_evaluated_edit_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    record = made_up_round()
    record["articles"][1]["completions"] = [{"text": "x", "questions": []}]
    rows, report = imported(record)
    assert (len(rows), report["n_tasks"], report["n_tasks_without_choice"]) == (1, 2, 1)
    assert "For 1 of the passages nothing is chosen" in capsys.readouterr().out


def test_mistakes_end_with_a_message_and_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("round.json").write_text('{"articles": [{"prompt": "p", "completions": []}]}')
    assert main(["import-round", "round.json", "--select", "best.jsonl"]) == 2
    assert "round.json, articles[0].completions: the list is empty" in capsys.readouterr().err
    assert not Path("best.jsonl").exists()
    Path("round.json").write_text(json.dumps(made_up_round()))
    assert main(["import-round", "round.json", "--json", "absent/report.json"]) == 2
    assert "absent/report.json: can't be written" in capsys.readouterr().err


def test_the_published_rounds_choice_is_the_published_one(shared_data: Callable[[str], Path]) -> None:
    path, published = shared_data("seal/rank_iter0.json"), shared_data("seal/sft_best1of5_iter0.jsonl")
    assert main(["import-round", str(path), "--select", "best.jsonl", "--json", "report.json"]) == 0
    assert Path("best.jsonl").read_bytes() == published.read_bytes()  # 50 of 50 rows
    report = json.loads(Path("report.json").read_text())
    assert (report["n_tasks"], report["n_edits"], report["seeds"]) == (50, 250, 3)
    assert report["reliability"] == pytest.approx(0.32, abs=0.005)
    assert report["var_within"] == pytest.approx(0.0367, abs=1e-4)
    assert report["var_between_observed"] == pytest.approx(0.0179, abs=1e-4)
    assert report["winners_without_gain"] == pytest.approx(0.2)
    assert report["mean_accuracy"] == pytest.approx(0.4018, abs=1e-4)
    assert report["best_of_k_accuracy"] == pytest.approx(0.5431, abs=1e-4)
