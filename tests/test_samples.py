"""An edit of several samples: each is the policy's own, the edit is their lines together, and all of them are cloned."""

import json
import sqlite3
from dataclasses import replace

import pytest

from selfedit.algorithms.base import rate
from selfedit.config import make_settings
from selfedit.edits.parsing.lines import edit_lines
from selfedit.edits.text import text_change
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.evaluation.machine import load_engine
from selfedit.evaluation.planning import plan
from selfedit.plugins import find
from selfedit.policies.language_model import LanguageModel
from selfedit.tasks.sources.base import open_source
from selfedit.types import Outcome


def with_samples(fields: dict, n: int) -> dict:
    return fields | {"edits": fields["edits"] | {"samples": n}, "ladder": {"rungs": ["base_edits", "rounds"]}}


def test_the_first_sample_is_the_edit_of_one_and_the_others_are_more(fields):
    one, three = (make_settings(with_samples(fields, n)) for n in (1, 3))
    engine, tasks = load_engine(one), open_source(one).draw(1)
    single = LanguageModel(engine, None, one).propose(tasks, 2, 5)
    several = LanguageModel(engine, None, three).propose(tasks, 2, 5)
    assert [edit.completion for edit in several] == [edit.completion for edit in single]
    assert all(len({c.token_ids for c in edit.completions}) == 3 for edit in several)
    for edit, task in zip(several[::2], tasks, strict=True):
        assert edit.text == "\n".join(completion.text for completion in edit.completions)
        lines = edit_lines(edit.text)
        parsed = text_change(three, engine, task, [edit.text, edit.text])
        assert parsed.lines == tuple(dict.fromkeys(lines))
        assert len(text_change(one, engine, task, [f"{edit.text}\n{edit.text}"]).lines) > len(parsed.lines)


def test_every_sample_of_a_winner_is_cloned(fields, tmp_path):
    steps = {}
    for n in (1, 2):
        summary = run_experiment(make_settings(with_samples(fields, n)), tmp_path / str(n))
        learned = summary["rounds"][1]["algorithm"]
        assert learned["learned_from"] == 4  # two of each passage: edits are counted, not samples
        steps[n] = learned["optimiser_steps"]
        with sqlite3.connect(tmp_path / str(n) / "journal.db") as db:
            row = json.loads(db.execute("select data from chunks where key = 'round-1/propose/0'").fetchone()[0])
            texts = db.execute("select text from edits where round = 1").fetchall()
        assert {len(edit["further"]) for edit in row["edits"]} == {n - 1}
        assert all(text.count("\n") >= n - 1 for (text,) in texts)
    assert steps == {1: 1, 2: 1}  # 4 and 8 sequences in batches of 8
    clones = make_settings(with_samples(fields, 3))
    learned = run_experiment(clones, tmp_path / "3")["rounds"][1]["algorithm"]
    assert learned["optimiser_steps"] == 2  # 12 sequences


def test_samples_are_read_each_by_itself(fields):
    """What one sample says changes nothing in how another is read: neither its header nor its numbers nor its questions."""
    for preset in ("demo", "paper"):
        settings = make_settings(with_samples(fields, 2) | {"preset": preset})
        engine, task = load_engine(settings), open_source(settings).draw(1)[0]
        texts = ["Question 1: Who? Answer: Ann", "Here are some:\n1. Ann is here.\n2. Bo is not."]
        alone = [text_change(settings, engine, task, [text]).lines for text in texts]
        assert text_change(settings, engine, task, texts).lines == alone[0] + alone[1]
        header = text_change(settings, engine, task, ["Ann is here.", "Implications:\nBo is not."])
        assert header.lines[0] == "Ann is here."


def test_a_sample_that_says_nothing_is_not_cloned(fields):
    settings = make_settings(with_samples(fields, 2))
    engine, task = load_engine(settings), open_source(settings).draw(1)[0]
    (edit,) = LanguageModel(engine, None, settings).propose([task], 1, 5)
    silent = replace(edit, further=(replace(edit.completion, token_ids=(engine.eos_id,), text=""),))
    algorithm = find("algorithms", settings.algorithm.name)(engine, settings.algorithm.model_copy(update={"batch_size": 1}))
    steps = []
    for written in (edit, silent):
        rated = rate([written], [Outcome(written.id, 0, "ok", "", (), 1.0, 1.0, 1.0, 9, "")])
        steps.append(algorithm.improve(None, rated, {}, 0).figures["optimiser_steps"])
    assert steps == [2, 1]


def test_policy_gradients_take_one_sample_and_a_plan_says_how_many(fields):
    with pytest.raises(SettingsError, match="edits of one sample"):
        make_settings({"edits": {"samples": 2}, "algorithm": {"name": "grpo"}})
    training = next(line for line in plan(make_settings({"edits": {"samples": 2}}))["lines"] if "training" in line)
    assert "8 edits of 2 samples" in training
