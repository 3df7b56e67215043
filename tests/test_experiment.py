"""A whole run on a tiny random model: every stage, resume after SIGKILL and Ctrl-C, nothing lost, the base untouched."""

import json
import shutil
import signal
import sqlite3
import time
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import tomli_w
import torch
from torch.utils import _device
from transformers import AutoTokenizer, dynamic_module_utils

from commands import Command
from journals import journal_of, summary_of, wait_for_chunk
from selfedit.config import MACHINE_FIELDS, AtOnce, load_settings, make_settings
from selfedit.engine.model import loading
from selfedit.engine.planning import capacity, memory
from selfedit.engine.training.fit import Cohort
from selfedit.errors import ModelError, RunError, SettingsError
from selfedit.evaluation import machine
from selfedit.evaluation.experiment import dry_run, run_experiment
from selfedit.evaluation.machine import load_engine, resolve
from selfedit.evaluation.planning import plan
from selfedit.tasks.sources.world import draw_tasks
from tools.base.train import Recipe, new_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """As the runs in processes of their own have: sums over threads round differently."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def uninterrupted(fields, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    run_experiment(make_settings(fields), directory)
    return directory


def test_a_run_climbs_every_rung_and_says_what_it_did(uninterrupted, fields):
    summary = summary_of(uninterrupted)
    rungs = [row["rung"] for row in summary["ladder"]]
    assert rungs == [
        "no_edit",
        "passage_only",
        "base_edits",
        "base_self_qa",
        "round_1",
        "best_of_k",
        "perfect_edits",
        "rl_edits_base_learner",
        "passage_only_rl_learner",
        "in_context",
    ]
    trained = [row for row in summary["ladder"] if row["rung"] not in ("no_edit", "in_context")]
    assert {row["steps"] for row in trained} == {fields["inner"]["steps"]}
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in summary["ladder"])
    assert {(row["a"], row["b"]) for row in summary["paired"]} >= {
        ("round_1", "base_edits"),
        ("round_1", "passage_only"),
    }
    assert summary["base_sha256_before"] == summary["base_sha256_after"]
    assert summary["seed"] == 0
    assert [row["round"] for row in summary["rounds"]] == [0, 1]
    assert (uninterrupted / "report.html").stat().st_size > 10_000
    assert (uninterrupted / "policy" / "round-1" / "adapter_model.safetensors").exists()
    timing = json.loads((uninterrupted / "summary.json").read_text())["timing"]
    assert timing["total_seconds"] > 0


def test_the_journal_answers_what_was_written_and_what_it_was_worth(uninterrupted):
    with sqlite3.connect(uninterrupted / "journal.db") as db:
        edits = db.execute("select task_id, prompt, text, context_sha256 from edits where round = 1").fetchall()
        outcomes = db.execute("select status, reward, adapter_sha256 from outcomes where round = 1").fetchall()
        decisions = db.execute("select verdict from decisions").fetchall()
        answers = db.execute("select count(*) from answers").fetchone()[0]
    assert len(edits) == 2 * 2 + 2  # the round's, and the guards' look at development tasks
    assert all(len(sha) == 64 and "Passage:" in prompt for _, prompt, _, sha in edits)
    assert {status for status, _, _ in outcomes} <= {"ok", "invalid", "diverged"}
    assert all((reward is None) == (status != "ok") for status, reward, _ in outcomes)
    assert decisions == [("accepted",)]
    assert answers > 0


def test_the_same_settings_give_the_same_journal(uninterrupted, fields, tmp_path):
    told = []
    run_experiment(make_settings(fields), tmp_path / "again", lambda kind, data: told.append((kind, data)))
    followed = [data for kind, data in told if kind == "edit"]
    assert [data["when"] for data in followed] == ["before", "after"]  # the same passage, live
    assert followed[0]["answers"][0]["question"] == followed[1]["answers"][0]["question"]
    assert journal_of(tmp_path / "again") == journal_of(uninterrupted)
    assert summary_of(tmp_path / "again") == summary_of(uninterrupted)


def test_a_finished_run_is_looked_up_not_repeated(uninterrupted, fields):
    before = (uninterrupted / "journal.db").stat().st_mtime_ns, journal_of(uninterrupted)
    events = []
    summary = run_experiment(make_settings(fields), uninterrupted, lambda kind, data: events.append(kind))
    assert summary["ladder"] == summary_of(uninterrupted)["ladder"]
    assert events == ["done"]
    assert journal_of(uninterrupted) == before[1]


def start(config: Path, directory: Path) -> Command:
    return Command(["run", str(config), "--out", str(directory), "--json-lines"], config.parent)


KILLED_AFTER = (  # the last chunk before the stage that is hit
    "look-0/before",  # inside propose
    "look-0/propose/0",  # inside apply
    "look-0/apply/0",  # inside the guards
    "round-1/propose/0",  # inside before
    "round-1/apply/0",  # inside the pilot
    "round-1/pilot/apply/0",  # inside improve
    "look-1/guards",  # inside settle, and the ladder's first answers
    "ladder/best_of_k/propose/0",  # inside the ladder
)


@pytest.mark.timeout(400)
def test_a_run_killed_in_every_stage_ends_as_one_that_never_was(uninterrupted, fields, tmp_path):
    config, directory = tmp_path / "run.toml", tmp_path / "run"
    config.write_text(tomli_w.dumps(fields))
    for key in KILLED_AFTER:
        with start(config, directory) as child:
            wait_for_chunk(child, directory, key)
            child.send(signal.SIGKILL)
    with start(config, directory) as child:
        assert child.wait(200) == 0, child.errors
    assert summary_of(directory) == summary_of(uninterrupted)
    assert journal_of(directory) == journal_of(uninterrupted)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        ours, theirs = (d / "policy" / "round-1" / name for d in (directory, uninterrupted))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.timeout(200)
def test_an_algorithms_state_survives_a_kill(fields, tmp_path):
    """Its moments, coefficients and value head come back from the disk as they were in memory."""
    how = {"name": "ppo", "rank": 4, "alpha": 8.0, "ppo": {"minibatch": 2}}
    rest = {
        "rounds": 2,
        "algorithm": how,
        "ladder": {"rungs": ["no_edit"]},
        "reward": {"metric": "logprob", "pilot": 0, "max_answer_tokens": 3},
    }
    config = tmp_path / "run.toml"
    config.write_text(tomli_w.dumps(fields | rest))
    run_experiment(load_settings(config), tmp_path / "whole")
    for key in ("look-1/guards", "round-2/apply/0"):
        with start(config, tmp_path / "run") as child:
            wait_for_chunk(child, tmp_path / "run", key)
            child.send(signal.SIGKILL)
    run_experiment(load_settings(config), tmp_path / "run")
    assert journal_of(tmp_path / "run") == journal_of(tmp_path / "whole")
    rounds = summary_of(tmp_path / "run")["rounds"]
    assert [row["verdict"] for row in rounds] == ["base", "accepted", "accepted"]
    assert all(row["algorithm"]["learned_from"] == 4 for row in rounds[1:])


def outcomes_in(directory: Path, key: str) -> list[dict]:
    """The outcomes of one chunk of the journal."""
    data = next(row[3] for row in journal_of(directory) if row[0] == key)
    return json.loads(data)["outcomes"]


def test_a_few_edits_of_each_round_get_a_second_seed_which_tells_signal_from_noise(uninterrupted):
    first, again = (outcomes_in(uninterrupted, f"round-1/{part}/0") for part in ("apply", "pilot/apply"))
    assert [o["edit_id"] for o in again] == sorted((o["edit_id"] for o in first), key=lambda name: name[-1])
    assert not {o["seed"] for o in first} & {o["seed"] for o in again}
    summary = summary_of(uninterrupted)
    (round_,) = (row["reliability"] for row in summary["rounds"] if row["round"] == 1)
    assert round_ == summary["reliability"]  # of one round
    assert (round_["of"], round_["n_edits"], round_["n_tasks"]) == ("probability", 4, 2)
    pairs = [(a["probability"], b["probability"]) for a in first for b in again if a["edit_id"] == b["edit_id"]]
    assert round_["var_within"] == pytest.approx(sum((x - y) ** 2 / 2 for x, y in pairs) / 4)
    means = [(x + y) / 2 for x, y in pairs]
    assert round_["var_observed"] == pytest.approx(sum((means[i] - means[i + 1]) ** 2 / 2 for i in (0, 2)) / 2)
    assert round_["var_between"] == pytest.approx(round_["var_observed"] - round_["var_within"] / 2)
    assert round_["reliability"] == pytest.approx(round_["var_between"] / round_["var_observed"])


@pytest.mark.parametrize(("inner", "pilot"), [({}, 0), ({"seeds": 2}, 8)])
def test_without_a_pilot_nothing_is_said_and_several_seeds_need_none(inner, pilot, fields, tmp_path):
    changes = {
        "inner": fields["inner"] | inner,
        "reward": fields["reward"] | {"pilot": pilot},
        "ladder": {"rungs": ["no_edit"]},
    }
    summary = run_experiment(make_settings(fields | changes), tmp_path / "run")
    assert not any("pilot" in row[0] for row in journal_of(tmp_path / "run"))
    assert (summary["reliability"]["var_within"] is None) == (not inner)
    assert (summary["reliability"]["reliability"] is None) == (not inner)
    # The guards' look tries each development task's edit once, whatever the rounds do.
    assert len({o["edit_id"] for o in outcomes_in(tmp_path / "run", "look-0/apply/0")}) == fields["tasks"]["dev"]
    planned = plan(make_settings(fields | changes))["inner_loops"]
    assert planned == 4 * inner.get("seeds", 1) + 2 * fields["tasks"]["dev"]


def test_with_auto_close_edits_get_up_to_three_seeds_and_a_stopped_run_repeats_them(fields, tmp_path):
    changes = {
        "inner": fields["inner"] | {"seeds": "auto"},
        "reward": fields["reward"] | {"pilot": 1, "margin": 1e6},  # everything is close
        "algorithm": fields["algorithm"] | {"name": "rest_em", "rest_em": {"keep": 1, "positive_only": False}},
        "ladder": {"rungs": ["no_edit"]},
    }
    settings, whole = make_settings(fields | changes), tmp_path / "whole"
    summary = run_experiment(settings, whole)
    tried = [
        o["edit_id"] for row in journal_of(whole) if row[0].startswith("round-1/") for o in json.loads(row[3]).get("outcomes", [])
    ]
    assert len(tried) == 12 <= plan(settings)["inner_loops"]
    assert {tried.count(name) for name in tried} == {3}
    assert len(outcomes_in(whole, "round-1/seed-2/apply/0")) == 3  # the pilot's edit has its second one
    assert "1 to 3 seeds = at most 12 inner loops" in "".join(plan(settings)["lines"])
    assert summary["reliability"]["n_edits"] == 4

    for part in ("pilot", "seed-2", "seed-3"):

        def stop(kind, data, part=part):
            if kind == "progress" and data["name"] == f"round-1/{part}":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_experiment(settings, tmp_path / "stopped", stop)
    assert run_experiment(settings, tmp_path / "stopped")["rounds"] == summary["rounds"]
    assert journal_of(tmp_path / "stopped") == journal_of(whole)


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(fields, tmp_path):
    config, directory = tmp_path / "run.toml", tmp_path / "run"
    config.write_text(tomli_w.dumps(fields))
    with start(config, directory) as child:
        wait_for_chunk(child, directory, "look-0/before")
        child.send(signal.SIGINT)
        assert child.wait(60) == 130
    assert "run the same command again" in child.errors
    assert "Traceback" not in child.errors


def test_the_policy_and_the_base_answer_alike_in_peft(uninterrupted, fields):
    """The exported policy, loaded by PEFT, writes what it writes here."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    engine = load_engine(make_settings(fields))
    directory = uninterrupted / "policy" / "round-1"
    policy = engine.load_adapter(directory)
    base = AutoModelForCausalLM.from_pretrained(fields["model"]["path"], dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, directory).eval()
    for task in draw_tasks("dev", ("e1",), 2, seed=1):
        ids = engine.encode_prompt(task.text)
        ours = engine.sample([ids], [0], on=policy, max_new_tokens=8, temperature=1e-4, top_p=1.0)[0].token_ids
        theirs = peft.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=8, do_sample=False)
        assert list(ours) == theirs[0, len(ids) :].tolist()


def test_a_mutated_base_is_noticed(fields):
    engine = load_engine(make_settings(fields))
    before = engine.base_sha256()
    with torch.no_grad():
        next(engine.model.parameters()).view(-1)[0] += 1.0
    assert engine.base_sha256() != before


def test_another_base_under_the_same_path_is_refused(uninterrupted, fields, tmp_path, monkeypatch):
    directory, model = tmp_path / "run", tmp_path / "model"
    shutil.copytree(fields["model"]["path"], model)
    changes = {"model": fields["model"] | {"path": str(model)}, "ladder": {"rungs": ["no_edit"]}}
    settings = make_settings(fields | changes)
    run_experiment(settings, directory)
    (directory / "summary.json").unlink()
    torch.manual_seed(1)
    new_model(Recipe(d=32, layers=2, heads=4, d_ff=48), AutoTokenizer.from_pretrained(model)).save_pretrained(model)
    with pytest.raises(ModelError, match="not those that this run started with"):
        run_experiment(settings, directory)


def test_the_plan_counts_the_inner_loops_that_run(uninterrupted, fields):
    with sqlite3.connect(uninterrupted / "journal.db") as db:
        ran = db.execute("select count(*) from outcomes").fetchone()[0]
    planned = dry_run(make_settings(fields))
    assert planned["inner_loops"] == ran
    assert planned["estimated_seconds"] > 0
    used = planned["memory"]
    assert (used["members"], used["budget"], used["step_tokens"]) == (4, 1.0, 16)
    assert 0 < used["base"] < used["peak"] < used["budget"]
    lines = {line.split()[0]: line for line in planned["lines"]}
    assert "1 GiB to plan with" in lines["memory"]
    assert "4 adapters in training" in lines["at"]
    assert "too" not in lines
    small = make_settings(fields | {"model": fields["model"] | {"memory_gib": 1e-4}})
    assert any(line.startswith("too much") for line in dry_run(small)["lines"])


def test_what_is_auto_is_resolved_once_and_a_resumed_run_takes_it_from_its_own_settings(fields, tmp_path, monkeypatch):
    model = {k: v for k, v in fields["model"].items() if k not in ("members_at_once", "memory_gib", "dtype")}
    settings = make_settings(fields | {"model": model, "ladder": {"rungs": ["no_edit"]}})
    events = []
    monkeypatch.setattr(capacity, "usable_bytes", lambda device: 2 << 20)  # 2 MiB: less than eight members
    monkeypatch.setattr(loading, "has_bf16_units", lambda device: True)
    monkeypatch.setattr(machine, "speed_of_bf16", lambda settings, members: 1.42)

    def stop(kind, data):
        events.append((kind, data))
        if kind == "passage":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(settings, tmp_path / "run", stop)
    resolved = load_settings(tmp_path / "run" / "config.toml")
    assert 1 <= resolved.model.members_at_once < 8
    assert resolved.model.memory_gib == 0.0019
    assert not {"auto"} & {getattr(resolved.model, name) for name in MACHINE_FIELDS}
    monkeypatch.setattr(capacity, "usable_bytes", lambda device: 64 << 30)
    monkeypatch.setattr(machine, "speed_of_bf16", None)
    summary = run_experiment(settings, tmp_path / "run", lambda kind, data: events.append((kind, data)))
    assert summary["dtype"] == "bfloat16"
    assert summary["timing"]["dtype"] == "bf16: 1.4 times as fast as fp32 here"
    for plan_of in (data for kind, data in events if kind == "plan"):
        assert "(bf16: 1.4 times as fast as fp32 here)" in plan_of["lines"][0]
    assert summary["settings"] == resolved.fields()
    with pytest.raises(RunError, match=r"model\.members_at_once"):
        run_experiment(settings.on_machine(members_at_once=8), tmp_path / "run")
    assert run_experiment(settings.on_machine(members_at_once=resolved.model.members_at_once), tmp_path / "run")


def test_the_same_command_has_the_same_settings_whatever_memory_others_have_taken(fields, tmp_path, monkeypatch):
    model = {"path": fields["model"]["path"], "templates": "world", "dtype": "fp32"}
    settings = make_settings(fields | {"model": model, "rounds": 0, "ladder": {"rungs": ["no_edit"]}})
    resolved, summaries = [], []
    for free in (2 * memory.GIB, 1 << 20):
        monkeypatch.setattr(capacity, "free_ram", lambda free=free: free)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 16 * memory.GIB))
        resolved.append(resolve(settings)[0])
        on_gpu = settings.on_machine(device="cuda:0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        resolved.append(resolve(on_gpu)[0].on_machine(device="cpu"))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with nullcontext() if free >= memory.GIB else pytest.warns(UserWarning, match="close other programs.*0.00098 GiB"):
            summary = run_experiment(settings, tmp_path / str(free))
        summaries.append({name: value for name, value in summary.items() if name != "timing"})
    assert resolved[0] == resolved[2]
    assert resolved[1] == resolved[3]
    assert resolved[1].model.memory_gib == 13.0
    assert summaries[0] == summaries[1]
    assert (tmp_path / str(1 << 20) / "config.toml").read_text() == tomli_w.dumps(resolved[0].fields())


@pytest.mark.parametrize(
    ("units", "speed", "gib", "chosen", "why"),
    [
        (True, 1.42, 1.0, "bf16", "1.4 times as fast"),
        (True, 1.04, 1.0, "fp32", "not worth its rounding"),
        (True, None, 1.0, "bf16", "not measured"),
        (False, 9.0, 1.0, "fp32", "no matrix units"),
        (False, 0.1, 1e-4, "bf16", "in fp32 the weights alone"),
    ],
)
def test_dtype_auto_is_measured_where_it_could_go_either_way(units, speed, gib, chosen, why, fields, monkeypatch):
    monkeypatch.setattr(loading, "has_bf16_units", lambda device: units)
    monkeypatch.setattr(machine, "speed_of_bf16", lambda settings, members: speed)
    auto = make_settings(fields | {"model": fields["model"] | {"dtype": "auto", "memory_gib": gib}})
    settings, told = resolve(auto)
    assert settings.model.dtype == chosen
    assert told.startswith(chosen)
    assert why in told
    named = auto.on_machine(dtype="fp32")
    assert resolve(named)[0].model.dtype == "fp32"
    assert resolve(named)[1] == ""


def test_the_measurement_is_short_and_leaves_an_unusable_rank_to_the_run(fields):
    settings = make_settings(fields)
    began = time.monotonic()
    assert 0.01 < machine.speed_of_bf16(settings, 4) < 100
    assert time.monotonic() - began < 20  # tenths of a second on a free processor
    assert machine.speed_of_bf16(make_settings(fields | {"inner": {"rank": 999}}), 4) is None


# A schedule read as numbers, which tensors on the meta device don't have; loading with weights makes it on the CPU.
ODD_CODE = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM

class OddConfig(LlamaConfig):
    model_type = "odd"

class OddForCausalLM(LlamaForCausalLM):
    config_class = OddConfig

    def __init__(self, config):
        super().__init__(config)
        self.dropped = [rate.item() for rate in torch.linspace(0, 0.1, config.num_hidden_layers)]
"""


@pytest.fixture
def odd_model(tiny_world_model, tmp_path, monkeypatch) -> str:
    """A model that brings its own code, which can't be built without weights."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    # torch keeps the list of its functions that a device context redirects. Made first inside a load of transformers, which
    # replaces linspace for that time, it lacks the real one for the rest of the process.
    _device._device_constructors.cache_clear()
    directory = Path(shutil.copytree(tiny_world_model, tmp_path / "odd"))
    (directory / "modeling_odd.py").write_text(ODD_CODE)
    config = json.loads((directory / "config.json").read_text())
    config["model_type"] = "odd"
    config["auto_map"] = {"AutoConfig": "modeling_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def test_a_model_that_cannot_be_built_without_weights_runs_unplanned_with_a_warning(odd_model, fields, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "has_bf16_units", lambda device: False)
    model = {"path": odd_model, "trust_remote_code": True, "templates": "world"}
    settings = make_settings(fields | {"model": model, "ladder": {"rungs": ["no_edit"]}})
    events = []

    def stop(kind, data):
        events.append((kind, data))
        if kind == "passage":  # the engine is loaded
            raise KeyboardInterrupt

    with (
        pytest.warns(UserWarning, match=r"meta.*not planned: 8 adapters.*set model\.members_at_once") as warned,
        pytest.raises(KeyboardInterrupt),
    ):
        run_experiment(settings, tmp_path / "run", stop)
    assert len([w for w in warned if "not planned" in str(w.message)]) == 1
    resolved = load_settings(tmp_path / "run" / "config.toml")
    assert resolved.model.at_once == AtOnce()
    assert resolved.model.dtype == "fp32"
    assert not {"auto"} & {getattr(resolved.model, name) for name in MACHINE_FIELDS}
    assert next(data for kind, data in events if kind == "plan")["memory"] is None
    # Who plans by hand is not warned.
    by_hand = {"members_at_once": 2, "rows_at_once": 8, "tokens_at_once": 512}
    settings, _ = resolve(make_settings(fields | {"model": model | by_hand}))
    assert settings.model.at_once == AtOnce(2, 8, 512)


def test_a_config_that_does_not_say_what_a_plan_needs_is_not_planned_for(fields, monkeypatch):
    def lacking(*_):
        raise AttributeError("'OddConfig' object has no attribute 'num_attention_heads'")

    monkeypatch.setattr(memory.Costs, "of", lacking)
    monkeypatch.setattr(loading, "has_bf16_units", lambda device: True)
    auto = make_settings({"model": {"path": fields["model"]["path"]}})
    with pytest.warns(UserWarning, match="num_attention_heads"):
        settings, why = resolve(auto)
    assert settings.model.at_once == AtOnce()
    assert (settings.model.dtype, why) == ("bf16", "bf16: there are matrix units for it; not measured")


@pytest.mark.parametrize("wrong", ["nowhere", "no_causal", "targets", "needs_trust"])
def test_what_cannot_be_read_at_all_is_an_error_before_a_run(wrong, odd_model, fields, tmp_path):
    settings = {"path": odd_model, "trust_remote_code": True}
    if wrong == "nowhere":
        settings["path"] = str(tmp_path / "nowhere")
    elif wrong == "targets":
        settings = {"path": fields["model"]["path"], "targets": "c_attn"}
    else:
        file = Path(odd_model) / "config.json"
        config = json.loads(file.read_text())
        if wrong == "no_causal":
            config["model_type"] = "t5"
            config.pop("auto_map")
        settings["trust_remote_code"] = False
        file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no such directory|(no|as a) causal language model|matches 'c_attn'"):
        run_experiment(make_settings({"model": settings}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_memory_that_ran_out_is_journaled_and_a_resumed_run_goes_on_with_fewer_members(fields, tmp_path, monkeypatch):
    settings = make_settings(fields | {"ladder": {"rungs": ["no_edit", "base_edits"]}})
    sizes, step = [], Cohort.step

    def limited(cohort, place):
        sizes.append(cohort.active)
        if cohort.active > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(cohort, place)

    def until(key):
        def view(kind, data):
            told.append((kind, data))
            if kind == "warning" and key == "warning":
                raise KeyboardInterrupt

        return view

    told = []
    monkeypatch.setattr(Cohort, "step", limited)
    run_experiment(settings, tmp_path / "whole", until(None))
    warnings = [data for kind, data in told if kind == "warning"]
    assert [data["members_at_once"] for data in warnings] == [2]
    assert "memory ran out" in warnings[0]["text"]
    with pytest.raises(KeyboardInterrupt):
        run_experiment(settings, tmp_path / "killed", until("warning"))
    sizes.clear()
    # There is room again, but the run goes on as it would have.
    monkeypatch.setattr(Cohort, "step", lambda cohort, place: sizes.append(cohort.active) or step(cohort, place))
    run_experiment(settings, tmp_path / "killed")
    assert max(sizes) == 2
    assert journal_of(tmp_path / "killed") == journal_of(tmp_path / "whole")
    assert summary_of(tmp_path / "killed") == summary_of(tmp_path / "whole")
    note = next(row for row in journal_of(tmp_path / "whole") if row[0] == "memory/2")
    assert json.loads(note[3]) == {"members_at_once": 2, "reason": "CUDA out of memory"}


def test_a_test_split_look_is_written_to_the_ledger_once(fields, tmp_path):
    settings = make_settings(fields | {"tasks": fields["tasks"] | {"split": "test"}, "ladder": {"rungs": ["no_edit"]}})
    run_experiment(settings, tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "summary.json").unlink()
    run_experiment(settings, tmp_path / "runs" / "a")
    rows = [json.loads(line) for line in (tmp_path / "runs" / "test-ledger.jsonl").read_text().splitlines()]
    assert [row["run"] for row in rows] == ["a"]
    with closing(sqlite3.connect(tmp_path / "runs" / "a" / "journal.db")) as journal, journal:
        journal.execute("delete from chunks where key = 'ledger'")  # as if killed between the two
    (tmp_path / "runs" / "a" / "summary.json").unlink()
    run_experiment(settings, tmp_path / "runs" / "a")
    assert len((tmp_path / "runs" / "test-ledger.jsonl").read_text().splitlines()) == 1
    assert rows[0]["settings_sha256"] == load_settings(tmp_path / "runs" / "a" / "config.toml").sha256()


def test_a_look_that_could_not_begin_is_not_in_the_ledger(fields, tmp_path):
    tasks = fields["tasks"] | {"split": "test"}
    unreadable = fields | {"tasks": tasks, "reward": {"custom": "no_such_module:reward"}}
    with pytest.raises(SettingsError, match="no_such_module"):
        run_experiment(make_settings(unreadable), tmp_path / "runs" / "a")
    assert not (tmp_path / "runs" / "test-ledger.jsonl").exists()


def test_a_validation_text_and_a_custom_reward_that_are_not_there_are_named(fields, tmp_path):
    for reward, named in (
        ({"metric": "perplexity", "validation_text": str(tmp_path / "absent.txt")}, "validation_text"),
        ({"custom": "no_such_module:reward"}, "no_such_module"),
    ):
        with pytest.raises(SettingsError, match=named):
            run_experiment(make_settings(fields | {"reward": reward}), tmp_path / named)


def test_a_users_own_reward_is_found_in_the_current_directory_and_used(fields, tmp_path, monkeypatch):
    (tmp_path / "my_reward_for_a_test.py").write_text("def seven(task, answers):\n    return 7.0\n")
    monkeypatch.chdir(tmp_path)
    reward = fields["reward"] | {"custom": "my_reward_for_a_test:seven"}
    settings = make_settings(fields | {"reward": reward, "ladder": {"rungs": ["no_edit"]}})
    summary = run_experiment(settings, tmp_path / "run")
    assert summary["ladder"][0]["reward"] == 7.0
    assert summary["ladder"][0]["accuracy"] <= 1.0  # the share of right answers, whatever is rewarded
    assert summary["rounds"][1]["mean_gain"] == 0.0


@pytest.mark.parametrize("name", ["demo.py", "custom_reward.py"])
def test_examples_are_short_and_compile(name):
    source = (Path(__file__).parents[1] / "examples" / name).read_text()
    compile(source, name, "exec")
    assert len(source.splitlines()) <= 80


@pytest.mark.parametrize("name", ["squad.toml", "custom_reward.toml"])
def test_example_settings_are_valid_and_can_be_planned(name):
    settings = load_settings(Path(__file__).parents[1] / "examples" / name)
    assert plan(settings)["inner_loops"] > 0
