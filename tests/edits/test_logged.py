"""Logged rounds: the made-up one is read as it is meant, variants of the form are read, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_round import completion, made_up_round, mean_only

from selfedit.edits.parsing.logged import read_round
from selfedit.errors import TaskFileError
from selfedit.tasks import places

Change = Callable[[dict[str, Any]], object]


def written(directory: Path, value: object) -> Path:
    path = directory / "round.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_a_round_becomes_edits_with_an_outcome_for_each_evaluation(tmp_path: Path) -> None:
    found = read_round(written(tmp_path, made_up_round()))
    assert [(e.task_id, e.index, e.text) for e in found.edits] == [
        ("articles[0]", 0, "a"),
        ("articles[0]", 1, "b"),
        ("articles[0]", 2, "c"),
        ("articles[1]", 0, "d"),
        ("articles[1]", 1, "e\n2"),
    ]
    assert found.edits[3].prompt == "List: Ørsted.\n"
    assert [(o.edit_id, o.seed, o.reward) for o in found.outcomes[:4]] == [
        ("articles[0]#0", 0, 0.3333),
        ("articles[0]#0", 1, 0.6667),
        ("articles[0]#1", 0, 1.0),
        ("articles[0]#1", 1, 0.0),
    ]
    assert [o.gain for o in found.outcomes] == pytest.approx([0, 0.3334, 0.6667, -0.3333, -0.3333, 0, -0.5, 0])
    assert found.has_baseline


def one_baseline_differs(record: dict[str, Any]) -> None:
    record["articles"][0]["completions"][2] = completion("c", "000 100", "111 100")


def test_a_passage_has_one_baseline_however_its_grader_wavers(tmp_path: Path) -> None:
    record = made_up_round()
    one_baseline_differs(record)
    found = read_round(written(tmp_path, record))
    baselines = {o.reward - o.gain for o in found.outcomes[:6] if o.reward is not None and o.gain is not None}
    assert max(baselines) - min(baselines) < 1e-12
    assert baselines.pop() == pytest.approx((5 * 0.3333 + 1) / 6)


def without(record: dict[str, Any], *names: str) -> None:
    for article in record["articles"]:
        for owner in (record, article, *article["completions"]):
            for name in names:
                owner.pop(name, None)
        for item in article["completions"]:
            item["questions"] = [{k: v for k, v in q.items() if k not in names} for q in item["questions"]]


def test_fields_that_are_not_needed_may_be_absent(tmp_path: Path) -> None:
    record = made_up_round()
    whole = read_round(written(tmp_path, record))
    without(record, "overall", "k_completions", "title", "context", "stats", "question", "answer", "adapter_answer")
    assert read_round(written(tmp_path, record)) == whole
    without(record, "baseline_correct")
    bare = read_round(written(tmp_path, record))
    assert not bare.has_baseline
    assert [o.gain for o in bare.outcomes] == [o.reward for o in whole.outcomes]
    without(record, "rep")
    assert [o.seed for o in read_round(written(tmp_path, record)).outcomes] == [0] * 5


def test_a_baseline_told_in_part_is_none(tmp_path: Path) -> None:
    record = made_up_round()
    del record["articles"][0]["completions"][1]["questions"][0]["baseline_correct"]
    assert not read_round(written(tmp_path, record)).has_baseline


def test_an_edit_that_was_never_evaluated_is_a_failure_and_no_zero(tmp_path: Path) -> None:
    record = made_up_round()
    record["articles"][0]["completions"][1]["questions"] = []
    found = read_round(written(tmp_path, record))
    failed = [o for o in found.outcomes if o.status != "ok"]
    assert [(o.edit_id, o.reward, o.gain) for o in failed] == [("articles[0]#1", None, None)]
    assert len(found.edits) == 5


def test_an_edit_with_its_mean_alone_has_one_outcome(tmp_path: Path) -> None:
    record = made_up_round()
    record["articles"][1]["completions"] = [mean_only("d", 0.25, 0.5), mean_only("e", 0.75, 0.25), mean_only("f", 0, 0.75)]
    found = read_round(written(tmp_path, record))
    assert [(o.status, o.reward, o.gain) for o in found.outcomes[6:]] == [
        ("ok", 0.25, -0.25),
        ("ok", 0.75, 0.25),
        ("ok", 0, -0.5),
    ]
    assert found.means == {"articles[1]#0": 0.25, "articles[1]#1": 0.75, "articles[1]#2": 0.0}
    assert found.n_evaluations == [2, 2, 2]
    assert found.has_baseline
    record["articles"][1]["completions"][1]["stats"]["baseline_mean"] = None
    assert not read_round(written(tmp_path, record)).has_baseline


@pytest.mark.parametrize(
    ("change", "place", "problem"),
    [
        (lambda r: r.pop("articles"), "articles", "missing"),
        (lambda r: r.update(articles={}), "articles", "expected a list, found an object"),
        (lambda r: r.update(articles=[]), "articles", "the list is empty"),
        (lambda r: r["articles"].insert(1, 3), "articles[1]", "expected an object, found a number"),
        (lambda r: r["articles"][1].pop("prompt"), "articles[1].prompt", "missing"),
        (lambda r: r["articles"][1].update(completions=[]), "articles[1].completions", "the list is empty"),
        (lambda r: r["articles"][0]["completions"][2].pop("text"), "articles[0].completions[2].text", "missing"),
        (
            lambda r: r["articles"][0]["completions"][0].update(text=None),
            "articles[0].completions[0].text",
            "expected text, found null",
        ),
        (
            lambda r: r["articles"][0]["completions"][0].pop("questions"),
            "articles[0].completions[0].questions",
            "missing",
        ),
        (
            lambda r: r["articles"][0]["completions"][0]["questions"][1].pop("adapter_correct"),
            "articles[0].completions[0].questions[1].adapter_correct",
            "missing",
        ),
        (
            lambda r: r["articles"][0]["completions"][0]["questions"][1].update(adapter_correct="yes"),
            "articles[0].completions[0].questions[1].adapter_correct",
            "expected true or false, found text",
        ),
        (
            lambda r: r["articles"][0]["completions"][0]["questions"][1].update(baseline_correct=0.5),
            "articles[0].completions[0].questions[1].baseline_correct",
            "expected true or false, found a number",
        ),
        (
            lambda r: r["articles"][0]["completions"][0].update(stats={"adapter_mean": "0.5"}),
            "articles[0].completions[0].stats.adapter_mean",
            "number",
        ),
        (
            lambda r: r["articles"][0]["completions"][0]["questions"][1].update(rep="1"),
            "articles[0].completions[0].questions[1].rep",
            "expected a whole number, found text",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, change: Change, place: str, problem: str) -> None:
    record = made_up_round()
    change(record)
    path = written(tmp_path, record)
    with pytest.raises(TaskFileError) as caught:
        read_round(path)
    said = str(caught.value)
    assert said.startswith(f"{path}, {place}: ")
    assert problem in said
    assert "; " in said  # what to do


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (json.dumps(made_up_round()).encode()[:-40], "truncated"),
        (json.dumps(made_up_round()).encode()[:-30], "truncated"),
        (json.dumps(made_up_round()).encode()[:-1], "truncated"),
        (b"articles", "line 1: the JSON breaks at column 1"),
        (b"[]", "expected an object, found a list"),
        (b'{"articles": "\xff"}', "line 1: the JSON breaks at column 15 (invalid unicode code point); it is not UTF-8"),
        (b'{"articles": [NaN]}', "NaN"),
    ],
)
def test_what_is_no_round_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "round.json"
    path.write_bytes(content)
    with pytest.raises(TaskFileError, match=r"round\.json") as caught:
        read_round(path)
    assert told in str(caught.value)


def test_absent_and_oversized_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskFileError, match="can't be opened"):
        read_round(tmp_path / "absent.json")
    monkeypatch.setattr(places, "MAX_BYTES", 100)
    with pytest.raises(TaskFileError, match="larger than"):
        read_round(written(tmp_path, made_up_round()))


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "round.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(made_up_round()).encode())
    assert len(read_round(path).edits) == 5
