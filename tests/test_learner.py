"""One model writes the edits and another learns from them: nothing of the writer's training reaches the learner."""

import json
import shutil
import sqlite3

import pytest
from safetensors.torch import load_file, save_file

from selfedit.config import load_settings, make_settings
from selfedit.edits.text import text_change
from selfedit.engine.planning import capacity, memory
from selfedit.errors import ModelError, RunError, SettingsError
from selfedit.evaluation.experiment import dry_run, run_experiment
from selfedit.evaluation.machine import Machine, load_engine, resolve
from selfedit.evaluation.pooled import pool
from selfedit.summary import read_summary
from selfedit.tasks.sources.world import World


def chunks(directory) -> dict[str, dict]:
    with sqlite3.connect(directory / "journal.db") as db:
        return {key: json.loads(data) for key, data in db.execute("select key, data from chunks")}


def summary_of(directory) -> dict:
    summary = json.loads((directory / "summary.json").read_text())
    summary.pop("timing")
    return summary


@pytest.fixture(scope="session")
def two(fields, tiny_qwen2) -> dict:
    """A writer and a learner that share nothing: neither architecture nor tokenizer, width or window."""
    machine = {"members_at_once": 4, "dtype": "fp32", "memory_gib": 1.0}
    return fields | {"learner": {"path": tiny_qwen2, **machine}, "reward": {"max_answer_tokens": 3}}


@pytest.fixture(scope="session")
def taught(two, tmp_path_factory):
    directory = tmp_path_factory.mktemp("two") / "run"
    run_experiment(make_settings(two), directory)
    return directory


def test_each_model_has_its_part(two, taught):
    summary, done = summary_of(taught), chunks(taught)
    rungs = [row["rung"] for row in summary["ladder"]]
    assert "round_1" in rungs
    assert not {"rl_edits_base_learner", "passage_only_rl_learner"} & set(rungs)
    for whose in ("base", "learner"):
        assert summary[f"{whose}_sha256_before"] == summary[f"{whose}_sha256_after"]
    assert summary["base_sha256_before"] != summary["learner_sha256_before"]
    assert any("writes the edits" in note for note in summary["notes"])
    assert "Learner's weights" in (taught / "report.html").read_text()
    policy = load_file(taught / "policy" / "round-1" / "adapter_model.safetensors")
    widths = {tensor.shape[1] for name, tensor in policy.items() if "q_proj.lora_A" in name}
    assert widths == {32}
    # What is trained on are the learner's tokens (bytes), under its templates, not the writer's.
    settings = make_settings(two)
    engines = {"writer": load_engine(settings), "learner": load_engine(settings.of_learner())}
    task = World(settings.tasks, settings.seed).draw(1)[0]
    row = done["round-1/propose/0"]["edits"][0]
    lengths = {
        who: sorted(len(s.ids) for s in text_change(asked, engine, task, [row["text"]]).sequences)
        for (who, engine), asked in zip(engines.items(), (settings, settings.of_learner()), strict=True)
    }
    trained = done["round-1/apply/0"]["outcomes"][0]["trained_tokens"]
    batch, steps = settings.inner.batch_size, settings.inner.steps
    assert trained >= sum(lengths["learner"][:batch]) * steps / 2
    assert trained > sum(lengths["writer"][-batch:]) * steps


def test_the_learner_stays_as_it_is_while_the_writer_learns(fields, tmp_path):
    """With the writer's own checkpoint as the learner, the first round is that of one model; after it the learner is bare."""
    short = fields | {"ladder": {"rungs": ["no_edit"]}}
    run_experiment(make_settings(short), tmp_path / "one")
    run_experiment(make_settings(short | {"learner": fields["model"]}), tmp_path / "two")
    one, two = chunks(tmp_path / "one"), chunks(tmp_path / "two")
    same = [key for key in one if key.startswith(("round-1/", "look-0/")) and key != "round-1/settle"]
    assert len(same) >= 7
    assert {key: one[key] for key in same} == {key: two[key] for key in same}
    assert one["look-1/propose/0"] == two["look-1/propose/0"]
    assert two["look-1/before"] == two["look-0/before"]
    assert one["look-1/before"] != one["look-0/before"]


def test_a_stopped_run_goes_on_to_the_same_end(two, taught, tmp_path):
    seen = []

    def stop(kind, data):
        seen.append(kind)
        if kind == "round":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(make_settings(two), tmp_path / "run", stop)
    assert load_settings(tmp_path / "run" / "config.toml") == make_settings(two | _resolved(two))
    auto = two | {"learner": two["learner"] | {"memory_gib": "auto", "members_at_once": "auto"}}
    run_experiment(make_settings(auto), tmp_path / "run")
    assert chunks(tmp_path / "run") == chunks(taught)
    assert summary_of(tmp_path / "run") == summary_of(taught)
    with pytest.raises(RunError, match=r"learner"):
        run_experiment(make_settings({k: v for k, v in two.items() if k != "learner"}), tmp_path / "run")


def _resolved(two) -> dict:
    resolved, _ = resolve(make_settings(two))
    return {name: value for name, value in resolved.fields().items() if name in ("model", "learner")}


def test_a_dry_run_plans_both_models(two, tiny_qwen2):
    planned = dry_run(make_settings(two))
    lines = [line.split() for line in planned["lines"]]
    assert ["learner", tiny_qwen2] in lines
    assert planned["memory"]["training"] == 0 == planned["learner_memory"]["m_step"]
    assert [line[0] for line in lines].count("memory") == 2
    assert planned["learner_memory"]["budget"] == 1.0
    alone = dry_run(make_settings({k: v for k, v in two.items() if k != "learner"}))
    assert planned["inner_loops"] == alone["inner_loops"] - 2 * two["ladder"]["middle_tasks"]
    assert "learner_memory" not in alone


def test_two_models_share_the_memory(two, monkeypatch):
    monkeypatch.setattr(capacity, "usable_bytes", lambda device: 5 * memory.GIB)

    def budgets(model, learner):
        sections = {"model": two["model"] | {"memory_gib": model}, "learner": two["learner"] | {"memory_gib": learner}}
        resolved, _ = resolve(make_settings(two | sections))
        return resolved.model.memory_gib, resolved.learner.memory_gib

    assert budgets("auto", "auto") == (2.5, 2.4)  # halves, rounded down: their weights are next to nothing
    assert budgets(3.0, "auto") == (3.0, 2.0)
    assert budgets("auto", 4.0) == (1.0, 4.0)
    assert budgets(4.0, 4.0) == (4.0, 4.0)


def test_the_larger_model_gets_what_it_weighs(two, monkeypatch):
    monkeypatch.setattr(capacity, "usable_bytes", lambda device: 10 * memory.GIB)
    monkeypatch.setattr(Machine, "weights", property(lambda self: (6 if self.role == "learner" else 2) * memory.GIB))
    sections = {name: two[name] | {"memory_gib": "auto"} for name in ("model", "learner")}
    resolved, _ = resolve(make_settings(two | sections))
    assert (resolved.model.memory_gib, resolved.learner.memory_gib) == (3.0, 7.0)


def test_the_plan_says_why_of_both(two):
    sections = {"learner": two["learner"] | {"dtype": "auto"}}
    resolved, why = resolve(make_settings(two | sections))
    assert why.startswith("the writer fp32; the learner ")
    assert resolved.learner.dtype in why.split(";")[1]


def test_seeds_with_a_learner_are_pooled_and_another_learner_is_not(two, taught, tmp_path):
    other = make_settings(two | {"seed": 1, "learner": two["learner"] | {"memory_gib": 2.0}})
    run_experiment(other, tmp_path / "run")
    first, second = (read_summary(directory / "summary.json") for directory in (taught, tmp_path / "run"))
    assert pool([first, second]).learner_sha256 == first.learner_sha256_before
    with pytest.raises(RunError, match="learner_sha256"):
        pool([first, second.model_copy(update={"learner_sha256_before": "another"})])


def test_a_learner_that_changed_is_refused(two, tiny_qwen2, tmp_path):
    model = shutil.copytree(tiny_qwen2, tmp_path / "model")
    settings = make_settings(two | {"learner": two["learner"] | {"path": str(model)}})

    def stop(kind, data):
        if kind == "round":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(settings, tmp_path / "run", stop)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{model}: its weights are not those"):
        run_experiment(settings, tmp_path / "run")


def test_an_edit_in_the_learners_view_can_rank_first(two, tmp_path):
    reward = two["reward"] | {"proxy": "in_context", "proxy_keep": 1}
    settings = make_settings(two | {"reward": reward, "ladder": {"rungs": ["no_edit"]}})
    run_experiment(settings, tmp_path / "run")
    done = chunks(tmp_path / "run")
    assert len(done["round-1/proxy"]["proxy"]) > len(done["round-1/apply/0"]["outcomes"])


def test_settings_of_a_learner():
    paper = make_settings({"preset": "paper", "learner": {"path": "some/model"}})
    assert paper.learner.targets == "paper"
    assert paper.of_learner().model.path == "some/model"
    assert make_settings({"learner": {"path": "some/model"}}).of_learner().model.templates == "general"
    assert make_settings({}).of_learner() == make_settings({})
    assert "learner" not in make_settings({}).fields()
    assert make_settings({}).sha256() != make_settings({"learner": {}}).sha256()
    with pytest.raises(SettingsError, match=r"learner\.nonsense"):
        make_settings({"learner": {"nonsense": 1}})


def test_a_policy_that_was_trained_for_another_model_writes_its_streams(two, taught, tmp_path):
    """The trained writer's adapter does not fit the learner, and the stream leaves both models as they were."""
    arms = {"plain": {}, "kept": {"replay": 1.0, "rehearsal": 0.5}, "routed": {"merge": "routed"}}
    protocol = {"name": "continual", "passages": 2, "groups": 1, "arms": arms, "general": 2, "own_texts": 3}
    how = two | {"rounds": 0, "protocol": protocol | {"policy": str(taught)}}
    summary, trained = run_experiment(make_settings(how), tmp_path / "stream"), summary_of(taught)
    assert list(summary["arms"]) == list(arms)
    assert {row["rung"] for row in summary["ladder"]} >= {"no_edit", "round_1"}
    for whose in ("base", "learner"):
        hashes = {made[f"{whose}_sha256_{when}"] for made in (summary, trained) for when in ("before", "after")}
        assert len(hashes) == 1
    policy = load_engine(make_settings(two)).load_adapter(taught / "policy" / "round-1").sha256[:16]
    assert f"stream-0/by-{policy}/propose/0" in chunks(tmp_path / "stream")
