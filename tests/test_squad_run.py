"""`selfedit run` on a SQuAD file with a random checkpoint: every stage, and its numbers say that they mean nothing."""

import itertools
import json
import subprocess
import sys

import pytest

from selfedit.config import make_settings
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.tasks.files import as_text, read_tasks
from selfedit.tasks.sources.base import open_source


def squad_settings(model: str, source: str) -> dict:
    return {
        "rounds": 1,
        "model": {"path": model},
        "tasks": {"source": source, "per_round": 2, "dev": 1, "evaluation": 3},
        "edits": {"per_task": 2, "max_new_tokens": 8},
        "inner": {"steps": 2, "batch_size": 2, "rank": 4, "alpha": 8.0},
        "reward": {"metric": "exact_match", "max_answer_tokens": 4},
        "algorithm": {"epochs": 1, "rank": 4, "alpha": 8.0, "rest_em": {"positive_only": False}},
        "ladder": {"oracle_tasks": 2, "passage_lr_factors": [1.0]},
    }


def test_twenty_squad_tasks_go_through_every_stage(shared_data, tiny_qwen2, tmp_path):
    source = tmp_path / "tasks.json"
    tasks = itertools.islice(read_tasks(shared_data("squad/squad_val.json")), 20)
    source.write_text(as_text(tasks, "squad"), encoding="utf-8")
    summary = run_experiment(make_settings(squad_settings(tiny_qwen2, str(source))), tmp_path / "run")
    rungs = {row["rung"]: row for row in summary["ladder"]}
    assert "perfect_edits" not in rungs  # a file has none
    assert {"no_edit", "passage_only", "base_edits", "base_self_qa", "round_1", "in_context"} <= set(rungs)
    assert all(row["accuracy"] == 0 for row in rungs.values())
    assert any("random weights" in note for note in summary["notes"])
    assert summary["base_sha256_before"] == summary["base_sha256_after"]


def test_a_passage_longer_than_the_window_makes_its_edits_invalid_and_says_why(tiny_qwen2, tmp_path):
    rows = [
        {"context": f"Passage {i}. " + "long " * (400 if i % 2 else 1), "probes": [{"question": "?q", "answer": "a"}]}
        for i in range(20)
    ]
    source = tmp_path / "tasks.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    summary = run_experiment(make_settings(squad_settings(tiny_qwen2, str(source))), tmp_path / "run")
    failed = {row["rung"]: row["failed_edits"] for row in summary["ladder"]}
    assert failed["base_edits"] > 0
    reasons = [reason for row in summary["rounds"][1:] for reason in row["failures"]]
    assert any("over the model's window of 700" in reason for reason in reasons)
    note = next(note for note in summary["notes"] if note.startswith(f"base_edits: {failed['base_edits']} edit"))
    assert "could not be trained on" in note
    assert "over the model's window of 700." in note


def test_train_development_and_evaluation_tasks_are_disjoint(tmp_path):
    rows = [{"id": str(i), "context": f"Passage {i}.", "probes": [{"question": "q", "answer": "a"}]} for i in range(30)]
    source = tmp_path / "tasks.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    fields = {"tasks": {"source": str(source), "per_round": 5, "dev": 3, "evaluation": 4}}
    dev_split = open_source(make_settings(fields))
    test_split = open_source(make_settings({"tasks": fields["tasks"] | {"split": "test"}}))
    groups = [dev_split.dev(), dev_split.evaluation(), test_split.evaluation()]
    drawn = [task.id for round in range(1, 9) for task in dev_split.draw(round)]
    ids = [task.id for group in groups for task in group]
    assert len(ids) == len(set(ids)) == 3 + 4 + 4
    assert set(drawn) == {str(i) for i in range(30)} - set(ids)
    assert len({task.id for round in range(1, 4) for task in dev_split.draw(round)}) == 15  # none twice before all were seen


def test_too_few_tasks_are_refused_with_the_arithmetic(tmp_path):
    source = tmp_path / "tasks.jsonl"
    source.write_text(json.dumps({"context": "C.", "probes": [{"question": "q", "answer": "a"}]}))
    with pytest.raises(SettingsError, match=r"1 task\(s\), but 60 for test"):
        open_source(make_settings({"tasks": {"source": str(source)}}))


def test_all_of_squad_is_read_in_far_less_than_2_gb(shared_data):
    script = (
        "import sys; from selfedit.tasks.files import read_tasks; from pathlib import Path;"
        "n = sum(1 for _ in read_tasks(Path(sys.argv[1])));"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "print(n, peak.split()[1])"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(shared_data("squad/squad_val.json"))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(out[0]) == 2067
    assert int(out[1]) < 500_000  # KiB; a child's ru_maxrss would be its parent's


@pytest.mark.parametrize("protocol", ["single", "cpt", "stream"])
def test_a_squad_file_goes_through_every_protocol(protocol, shared_data, tiny_qwen2, tmp_path):
    fields = squad_settings(tiny_qwen2, str(shared_data("squad/squad_val.json")))
    arms = {"plain": {}, "routed": {"merge": "routed"}, "sleeping": {"consolidate": 2, "replay": 1.0, "gate": True}}
    fields["tasks"]["evaluation"] = 4
    fields |= {"rounds": 0, "protocol": {"name": protocol, "passages": 2, "groups": 2, "own_texts": 2, "arms": arms}}
    summary = run_experiment(make_settings(fields), tmp_path / "run")
    assert {"no_edit", "base_edits", "in_context"} <= {row["rung"] for row in summary["ladder"]}
    assert any("random weights" in note for note in summary["notes"])
    assert summary["base_sha256_before"] == summary["base_sha256_after"]
    if protocol == "stream":
        assert set(summary["arms"]) == set(arms)
        assert summary["arms"]["plain"]["general_before"] is None  # a file says nothing of what the base knows


def test_all_tasks_of_a_file_are_tested_where_nothing_is_trained_on_them(tmp_path):
    rows = [{"id": str(i), "context": f"Passage {i}.", "probes": [{"question": "q", "answer": "a"}]} for i in range(30)]
    source = tmp_path / "tasks.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    tasks = {"source": str(source), "dev": 3, "evaluation": 30, "split": "all"}
    untrained = {"rounds": 0, "ladder": {"passage_lr_factors": [1.0]}, "tasks": tasks}
    assert {task.id for task in open_source(make_settings(untrained)).evaluation()} == {str(i) for i in range(30)}
    with pytest.raises(SettingsError, match=r"30 task\(s\), but 31 are to be tested"):
        open_source(make_settings(untrained | {"tasks": tasks | {"evaluation": 31}}))
    for trained in ({"rounds": 1}, {"ladder": {}}, {"tasks": tasks | {"source": "world"}}):
        with pytest.raises(SettingsError, match="would be trained or chosen on"):
            make_settings(untrained | trained)
