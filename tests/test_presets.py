"""The published recipe and the clean one: what they set, and that a run trains on it."""

import json
import sqlite3

import pytest

from benchmarks.race import EditRunner
from selfedit.algorithms.rest_em import RestEmSettings
from selfedit.config import AlgorithmSettings, make_settings
from selfedit.edits.text import text_change
from selfedit.engine.training.cohort import Cohort
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import dry_run, run_experiment
from selfedit.evaluation.machine import Machine, load_engine
from selfedit.evaluation.planning import made_up_updates, plan
from selfedit.evaluation.timing import measured_seconds
from selfedit.inner import Trial
from selfedit.rewards.examiner import Examiner
from selfedit.tasks.sources.base import open_source

TEXT = "Here they are:\n1. Ann is here.\n2. Bo is not.\n3. Cy is old."


def test_paper_and_clean_differ_in_the_padding_alone():
    paper, clean = (make_settings({"preset": preset}) for preset in ("paper", "clean"))
    assert paper.inner.pad_to == 2048
    assert clean.model_copy(update={"preset": "paper", "inner": paper.inner}) == paper
    assert clean.inner.model_copy(update={"pad_to": 2048}) == paper.inner
    assert (paper.targets, paper.inner.epochs, paper.inner.batch_size) == ("paper", 10, 1)
    assert (paper.edits.per_task, paper.algorithm.rank_by) == (5, ("gain",))
    assert paper.algorithm.own("rest_em", RestEmSettings).keep == 1


def test_an_algorithm_brings_its_own_settings_and_a_preset_those_of_its_own():
    def found(**fields):
        algorithm = make_settings(fields).algorithm
        own = algorithm.table(algorithm.name)
        return algorithm.name, algorithm.epochs, getattr(own, "minibatch", None), getattr(own, "kl", None)

    assert found() == found(algorithm={"name": "reinforce"}) == ("reinforce", 1, 16, 0.05)
    assert make_settings({}).algorithm == AlgorithmSettings()
    assert found(algorithm={"reinforce": {"kl": 0.5}}) == ("reinforce", 1, 16, 0.5)
    assert found(algorithm={"name": "rest_em"})[:2] == ("rest_em", 4)
    assert found(preset="paper") == found(preset="paper", algorithm={"name": "rest_em"})
    assert found(preset="paper")[:2] == ("rest_em", 2)
    assert found(preset="paper", algorithm={"name": "ppo"})[:2] == ("ppo", 2)
    assert found(preset="clean", algorithm={"name": "reinforce", "epochs": 3})[:2] == ("reinforce", 3)


def test_edits_that_no_policy_gradient_learns_from_are_cloned_where_nobody_named_an_algorithm():
    for fields in ({"edits": {"samples": 5}}, {"reward": {"proxy": "in_context"}}):
        assert make_settings(fields).algorithm.name == "rest_em"
        with pytest.raises(SettingsError, match=r"take algorithm\.name = 'rest_em'"):
            make_settings(fields | {"algorithm": {"name": "reinforce"}})


def test_a_named_number_of_steps_counts_whatever_the_preset_counts_in():
    assert make_settings({"preset": "paper", "inner": {"steps": 7}}).inner.recipe.steps_for(99) == 7
    assert make_settings({"preset": "paper"}).inner.recipe.steps_for(8) == 80
    assert make_settings({"inner": {"epochs": 3, "batch_size": 4}}).inner.recipe.steps_for(9) == 9
    assert make_settings({"inner": {"steps": 7, "epochs": 3, "batch_size": 4}}).inner.recipe.steps_for(9) == 9


@pytest.fixture(scope="module")
def recipes(fields):
    """Each preset on the tiny model, in small; a sequence has 40 tokens in the paper's."""

    def recipe(preset: str):
        inner = {"epochs": 3, "rank": 4, "alpha": 8.0, "seeds": 1} | ({"pad_to": 40} if preset == "paper" else {})
        sections = {"inner": inner, "edits": {"per_task": 2, "max_new_tokens": 24}, "reward": {"max_answer_tokens": 2}}
        ladder = fields["ladder"] | {"rungs": ["no_edit", "passage_only", "base_edits"]}
        return fields | sections | {"preset": preset, "ladder": ladder}

    return {preset: recipe(preset) for preset in ("paper", "clean")}


def test_a_run_trains_as_many_epochs_on_as_many_tokens_as_the_preset_says(recipes, tmp_path):
    tokens = {}
    for preset, fields in recipes.items():
        settings = make_settings(fields)
        engine, tasks = load_engine(settings), {task.id: task for task in open_source(settings).draw(1)}
        summary = run_experiment(settings, tmp_path / preset)
        with sqlite3.connect(tmp_path / preset / "journal.db") as db:
            read = dict(db.execute("select key, data from chunks where key like 'round-1/%'"))
        edits = {f"{e['task_id']}#{e['index']}": e for e in json.loads(read["round-1/propose/0"])["edits"]}
        for outcome in json.loads(read["round-1/apply/0"])["outcomes"]:
            edit = edits[outcome["edit_id"]]
            parsed = text_change(settings, engine, tasks[edit["task_id"]], [edit["text"]])
            once = sum(len(sequence.ids) for sequence in parsed.sequences)
            assert outcome["trained_tokens"] == 3 * once
            assert preset != "paper" or once == 40 * len(parsed.sequences)
        tokens[preset] = [row["trained_tokens"] for row in summary["ladder"] if row["rung"] == "passage_only"]
        steps = {row["rung"]: row["steps"] for row in summary["ladder"]}
        assert steps["passage_only"] < steps["base_edits"]  # fewer sequences
        assert "Every trained rung gets 3 epochs" in (tmp_path / preset / "report.html").read_text()
    assert tokens["paper"] > tokens["clean"]


def test_a_race_by_epochs_ends_where_the_whole_training_does(recipes, monkeypatch):
    settings = make_settings(recipes["clean"])
    engine, tasks = load_engine(settings), open_source(settings).draw(1)
    examiner = Examiner(engine, settings)
    texts = [TEXT, "Ann is here."]
    trials = [Trial(f"#{i}", tasks[0], text_change(settings, engine, tasks[0], [text]), i) for i, text in enumerate(texts)]
    updates = [trial.change.seeded(trial.seed) for trial in trials]
    assert [update.steps for update in updates] == [
        12,
        6,
    ]  # three epochs of 4 and of 2 sequences, the passage among them
    bank = engine.apply(updates, on=None)
    whole = examiner.likelihoods(bank, {0: tasks[0], 1: tasks[0]}, on=None)
    steps, step = [], Cohort.step
    monkeypatch.setattr(Cohort, "step", lambda cohort, place: steps.append(cohort.active) or step(cohort, place))
    runner = EditRunner(examiner, trials, on=None)
    half = runner.advance(0.5, [0, 1])
    assert half != pytest.approx(whole, abs=1e-6)
    assert sum(steps) == 6 + 3  # each edit stops half-way through its own epochs
    assert runner.advance(1, [0, 1]) == pytest.approx(whole, abs=1e-5)


class _Eos:
    window, eos_id = 512, 2

    def encode(self, text):
        return [5]


def test_a_plan_counts_epochs_and_padding(recipes):
    total = plan(make_settings(recipes["paper"]))["lines"][-1]
    assert "3 epochs x up to 1 sequence per step padded to 40 tokens" in total
    assert "2 steps" in plan(make_settings({"inner": {"steps": 2}}))["lines"][-1]
    settings = make_settings(recipes["paper"])
    (one,) = made_up_updates(settings, _Eos(), 1, 1)
    assert [len(sequence.ids) for sequence in one.sequences] == [40]
    engine = load_engine(settings)
    assert measured_seconds(settings, plan(settings), engine, engine, open_source(settings).draw(1)[:1]) > 0
    assert dry_run(settings)["memory"]["step_tokens"] == 40
    wide = make_settings(recipes["paper"] | {"inner": recipes["paper"]["inner"] | {"pad_to": 10**6}})
    window = load_engine(wide).window
    assert Machine(wide).needs()["step_tokens"] == window
