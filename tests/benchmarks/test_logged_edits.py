"""The benchmark of logged edits: a cut measurement goes on, and its table says what the trials say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import logged_edits
from benchmarks.logged_tables import against_large, passages

SETTINGS = """
[model]
dtype = "fp32"
[inner]
steps = 2
[reward]
max_answer_tokens = 3
"""


def a_round(path: Path) -> Path:
    def asked(right: bool) -> list[dict[str, Any]]:
        pairs = [("What does Ann sell?", "bread"), ("Where does Ann live?", "Rome")]
        return [{"rep": r, "question": q, "answer": a, "adapter_correct": right} for r in (0, 1) for q, a in pairs]

    edits = [{"text": f"Ann sells bread.\nAnn lives in Rome {k}.", "questions": asked(k == 1)} for k in (0, 1)]
    articles = [
        {"title": f"Ann {i}", "context": "Ann lives in Rome. She sells bread.", "prompt": "p", "completions": edits}
        for i in (0, 1)
    ]
    path.write_text(json.dumps({"articles": articles}))
    return path


def test_a_measurement_that_was_cut_goes_on_and_its_table_has_every_rung(tmp_path: Path) -> None:
    logged, settings = a_round(tmp_path / "round.json"), tmp_path / "settings.toml"
    settings.write_text(SETTINGS)
    out, table = tmp_path / "out", tmp_path / "table.json"
    measure = ["measure", str(logged), str(settings), "--out", str(out), "--at-once", "1"]
    assert logged_edits.main(measure) == 0
    trials = out / "trials.jsonl"
    whole = trials.read_text()
    first, second = whole.splitlines(keepends=True)
    trials.write_text(first + second[: len(second) // 2])
    assert logged_edits.main(measure) == 0
    assert trials.read_text() == whole
    assert logged_edits.main(["table", str(logged), str(out), "--json", str(table)]) == 0
    found = json.loads(table.read_text())["models"]["out"]
    assert [row["rung"] for row in found["ladder"]] == ["no_edit", "passage_only", "one_edit", "best_of_5", "in_context"]
    assert {row["n_passages"] for row in found["ladder"]} == {2}
    assert found["chosen_accuracy_7b"]["own_argmax_apart"] == 1


@pytest.mark.parametrize(("ours", "expected"), [([-1.0, -2.0], 1.0), ([-2.0, -1.0], -1.0)])
def test_a_learner_that_ranks_as_the_large_model_does_correlates_with_it(ours: list[float], expected: float) -> None:
    def way(logprob: float) -> dict[str, Any]:
        return {"questions": [{"gold": [logprob, 0.0], "others": []}]}

    ways = {str(k): way(value) for k, value in enumerate(ours)}
    found = passages([{"passage": i, "seed": 0, "ways": ways} for i in (0, 1)])
    made = against_large(found, {i: [[1.0, 0.5], [0.25, 0.0]] for i in (0, 1)}, "logprob")
    assert made["correlation"]["raw"] == pytest.approx(expected)
    assert made["chosen_accuracy_7b"]["small_learner"] == pytest.approx(0.75 if expected > 0 else 0.125)
    assert made["chosen_accuracy_7b"]["random"] == pytest.approx(0.4375)
