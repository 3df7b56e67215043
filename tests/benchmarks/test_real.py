"""The whole loop on a user's file, at a tiny size: every rung by every measure, and the same table when it is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import real
from benchmarks.logged_edits import contained
from selfedit.evaluation.rungs.base import Result
from selfedit.types import Probe, Task

SETTINGS = """
rounds = 1
[tasks]
split_by = "title"
per_round = 2
dev = 2
evaluation = 3
[edits]
per_task = 2
max_new_tokens = 12
[edits.templates]
facts = "{context} Facts:"
[inner]
steps = 2
lr = 1e-3
[reward]
metric = "offline"
pilot = 0
[algorithm]
name = "rest_em"
[guards]
anchors = 2
max_dev_drop = 1.0
[ladder]
rungs = ["no_edit", "passage_only", "base_edits", "rounds", "in_context"]
passage_lr_factors = [1.0]
"""


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    rows = [
        {
            "title": f"Town {title}",
            "context": f"Town {title} lies in the north. Ann {n} lives there.",
            "questions": [{"question": f"Who lives in town {title}?", "answer": f"Ann {n}"}],
        }
        for title in range(8)
        for n in range(3)
    ]
    (file := tmp_path / "squad.json").write_text(json.dumps(rows))
    return file


def test_every_rung_is_measured_and_a_finished_run_gives_its_table_again(squad: Path, tmp_path: Path) -> None:
    (settings := tmp_path / "real.toml").write_text(SETTINGS)
    file = tmp_path / "real.json"
    command = [str(squad), str(settings), "--out", str(tmp_path / "run"), "--json", str(file)]
    assert real.main(command) == 0
    made = json.loads(file.read_text())
    rungs = {row["rung"]: row for row in made["ladder"]}
    assert list(rungs) == ["no_edit", "passage_only", "base_edits", "round_1", "in_context", "facts", "samples"]
    assert {row["n_passages"] for row in rungs.values()} == {3}
    assert {row["steps"] for name, row in rungs.items() if name not in ("no_edit", "in_context")} == {2}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for row in summary["ladder"]:
        assert rungs[row["rung"]]["right"]["mean"] == pytest.approx(row["accuracy"])
        assert rungs[row["rung"]]["logprob"]["mean"] == pytest.approx(row["logprob"])
    assert {(row["a"], row["b"]) for row in made["paired"]} >= {("round_1", "base_edits"), ("samples", "passage_only")}
    assert {"before", "after"} <= made["edits"][0].keys()
    assert real.main(command) == 0
    assert json.loads(file.read_text()) == made


def test_what_an_edit_copies_is_counted() -> None:
    task = Task("t", "T", ("One two three four five six seven.",), (Probe("Who?", "one"),))
    result = Result("r", [task], [0.0], [()], 0.0, texts=["one two three four five! Eight nine"])
    found = real.copying(result)
    assert found == pytest.approx({"words_of_the_passage": 5 / 7, "copied_runs": 1 / 3, "passage_covered": 1 / 3})
    assert real.copying(Result("r", [task], [0.0], [()], 0.0)) is None


def test_the_sample_has_a_few_passages_of_each_title_and_is_the_same_each_time(squad: Path, tmp_path: Path) -> None:
    real.sample(squad, tmp_path / "a.json")
    real.sample(squad, tmp_path / "b.json")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows == json.loads((tmp_path / "b.json").read_text())
    assert len(rows) == 8 * min(3, real.PER_TITLE)


def test_an_answer_is_contained_word_for_word() -> None:
    golds = ("Ann Lee", "Anna Lee")
    said = {"It was Ann Lee.": True, "anna lee, the baker": True, "It was Ann Leeds": False, "Ann": False, "": False}
    for text, expected in said.items():
        assert contained(text, golds) == expected
