"""The protocols on a tiny random model: what they compute, by hand; every way of merging; resume after SIGKILL."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
import torch

from commands import Command
from journals import journal_of, summary_of, wait_for_chunk
from selfedit.cli.main import main
from selfedit.config import ArmSettings, make_settings, sub_seed
from selfedit.edits.text import passage_change, text_change
from selfedit.engine.adapters.lora import LoraAdapter
from selfedit.errors import RunError, SettingsError
from selfedit.evaluation import stream
from selfedit.evaluation.experiment import dry_run, run_experiment
from selfedit.evaluation.ladder import paired_rows
from selfedit.evaluation.machine import load_engine
from selfedit.evaluation.mixing import mixed
from selfedit.evaluation.planning import plan
from selfedit.evaluation.protocols import check_policy, context_of, groups_of
from selfedit.evaluation.rungs.base import Result
from selfedit.evaluation.validation_text import text_logprob
from selfedit.rewards.examiner import Examiner
from selfedit.store.gate import CostMeter, Decision
from selfedit.tasks.sources.base import open_source
from selfedit.types import Change, Task, TrainSequence, Update

N = 3  # passages of a group
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "passage": {"learns": "passage"},
    "perfect": {"learns": "perfect", "writer": "policy", "steps": 7},
    "replay": {"replay": 1.0, "rehearsal": 0.5, "distill": 1.0},
    "gate": {"gate": True, "writer": "policy"},
    "low": {"rank": 2, "groups": 1},
    "asleep": {"consolidate": 2, "replay": 1.0, "writer": "policy", "groups": 1},
    "again": {"refresh": 2, "refresh_steps": 3, "writer": "policy", "groups": 1},
    "average": {"merge": "average"},
    "routed": {"merge": "routed", "untrained": True},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def of(fields: dict[str, Any], **protocol: Any) -> dict[str, Any]:
    return {
        **fields,
        "rounds": 0,
        "reward": {**fields.get("reward", {}), "validation_text": __file__},
        "inner": {**fields["inner"], "lr": 0.05},  # so that an edit changes answers of a random model
        "ladder": {**fields["ladder"], "passage_lr_factors": [1.0]},
        "protocol": {"passages": N, "groups": 2, "general": 3, "own_texts": 4, **protocol},
    }


@pytest.fixture(scope="session")
def continual(fields, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    how = of(fields, name="continual", arms=ARMS)
    directory = tmp_path_factory.mktemp("continual") / "run"
    run_experiment(make_settings(how), directory)
    return how, directory


def test_a_stream_asks_all_passages_so_far_after_every_edit(continual):
    summary = summary_of(continual[1])
    assert list(summary["arms"]) == list(ARMS)
    for name, arm in summary["arms"].items():
        assert [len(row) for row in arm["matrix"].values()] == [1, 2, 3]
        diagonal = [arm["matrix"][str(n)][n - 1] for n in (1, 2, 3)]
        assert arm["immediate"] == pytest.approx(sum(diagonal) / 3)
        assert arm["retained"] == pytest.approx(sum(arm["matrix"]["3"]) / 3)
        assert arm["seeds"] == ARMS[name].get("groups", 2)
        assert sum(arm["decisions"].values()) == 3 * arm["seeds"]
        assert arm.get("against", {}).get("arm") == (None if name == "plain" else "plain")
        assert ("single" in arm) == (name not in ("passage", "perfect"))  # which is of self-edits
        if "single" in arm:
            alone = list(summary["per_task"]["base_edits"].values())[: 3 * arm["seeds"]]
            assert arm["single"] == pytest.approx(sum(alone) / len(alone))
        assert 0 <= arm["general_after"] <= 1
        # Where edits are kept separate, a text that no question is about meets none of them.
        untouched = arm["text_logprob_after"] == arm["text_logprob_before"]
        assert untouched == (ARMS[name].get("merge") == "routed")
    assert {row["rung"] for row in summary["ladder"]} == {"no_edit", "base_edits", "in_context"}
    assert summary["base_sha256_before"] == summary["base_sha256_after"]
    assert not (continual[1] / "streams").exists() or not list((continual[1] / "streams").iterdir())


def test_a_validation_text_is_scored_in_pieces_under_the_adapter(fields, tmp_path):
    engine = load_engine(make_settings(fields))
    (file := tmp_path / "text.txt").write_text("\ufeffThe town has a mill, and the mill has a wheel. " * 40, encoding="utf-8")
    ids = engine.encode(file.read_text(encoding="utf-8-sig"))
    assert len(ids) > 512 or engine.window <= 512
    size, total, n = min(512, engine.window), 0.0, 0
    for start in range(0, len(ids) - 1, size):
        piece = ids[start : start + size]
        ((one,),) = engine.score([[(piece[:1], piece[1:])]], on=None)
        total, n = total + sum(one.logprobs), n + len(one.logprobs)
    assert text_logprob(engine, str(file), None) == pytest.approx(total / n, abs=1e-5)
    assert text_logprob(engine, "", None) is None
    for name in ("absent.txt", "empty.txt"):
        (tmp_path / "empty.txt").write_text(" \n")
        with pytest.raises(SettingsError, match=r"reward\.validation_text"):
            check_policy(make_settings({"reward": {"validation_text": str(tmp_path / name)}}))


def test_arms_whose_edits_a_policy_writes_before_the_stream_have_the_same_ones(continual):
    written = {key.rsplit("/propose/", 1)[0] for key, stage, _, _ in journal_of(continual[1]) if stage == "propose"}
    by_the_stream = {f"stream-{g}/{arm}/{t}" for g in (0, 1) for arm in ("plain", "replay") for t in range(N)}
    by_the_stream |= {f"stream-0/low/{t}" for t in range(N)}
    assert {key for key in written if key.startswith("stream-") and "questions" not in key} == {
        "stream-0/by-base",
        "stream-1/by-base",
        *by_the_stream,
    }


def test_an_arm_has_steps_of_its_own(continual):
    arms = summary_of(continual[1])["arms"]
    assert {step["steps"] for step in arms["perfect"]["steps"]} == {ARMS["perfect"]["steps"]}
    assert {step["steps"] for step in arms["passage"]["steps"]} == {continual[0]["inner"]["steps"]}


def test_a_plan_counts_an_arms_own_steps_and_what_it_learns_again(fields):
    def loops(**arm: Any) -> int:
        return plan(make_settings(of(fields, name="stream", passages=4, groups=1, arms={"one": arm})))["inner_loops"]

    alone, steps = 4, fields["inner"]["steps"]
    assert loops() == alone + 4
    assert loops(steps=3 * steps, replay=1.0) == alone + 3 * 4 * 2
    again = 2 + 4  # passages that are learned anew after 2 and after 4
    assert loops(steps=3 * steps, consolidate=2) == alone + 3 * (4 + again)
    assert loops(steps=3 * steps, refresh=2, refresh_steps=2 * steps, rehearsal=1.0) == alone + 3 * 4 * 2 + 2 * again * 2


def test_a_plain_stream_is_what_the_engine_does_by_hand(continual):
    """Passage after passage, each beside the sum of those before: the same log-likelihoods would need the same weights."""
    how, directory = continual
    settings = make_settings(how)
    engine, tasks = load_engine(settings), open_source(settings).evaluation()[:N]
    state = None
    chunks = {key: data for key, _, _, data in journal_of(directory)}
    for t, task in enumerate(tasks):
        seed = sub_seed(settings.seed, "stream-0", "inner", task.id)
        update = passage_change(settings, engine, task).seeded(seed)
        adapter = engine.apply([update], on=state).adapter(0)
        assert adapter.sha256 in chunks[f"stream-0/passage/{t}/learn"]
        state = adapter if state is None else engine.combine([state, adapter])


def test_edits_that_are_learned_again_together_are_one_update_of_all_their_lines_beside_the_stream(continual):
    how, directory = continual
    settings = make_settings(how)
    engine, tasks = load_engine(settings), open_source(settings).evaluation()[:N]
    chunks = {key: json.loads(data) for key, _, _, data in journal_of(directory)}
    texts = [row["text"] for row in chunks["stream-0/by-base/propose/0"]["edits"]]
    parsed = [text_change(settings, engine, task, [text]) for task, text in zip(tasks, texts, strict=False)]
    seeds = [sub_seed(settings.seed, "stream-0", "inner", task.id) for task in tasks]
    both = tuple(sequence for change in parsed[:2] for sequence in change.sequences)
    updates = [change.seeded(seed) for change, seed in zip(parsed, seeds, strict=True)]
    updates.insert(2, replace(settings.inner.recipe.update(both, sub_seed(seeds[1], "refresh")), steps=2 * 3))
    learned: list[LoraAdapter] = []
    for update in updates:
        on = engine.combine(learned) if learned else None
        learned.append(engine.apply([update], on=on).adapter(0))
    rows = [chunks[f"stream-0/again/{key}"] for key in ("0/learn", "1/learn", "1/refresh", "2/learn")]
    assert [row["adapter_sha256"] for row in rows] == [adapter.sha256 for adapter in learned]
    assert rows[2]["steps"] == 2 * 3
    assert not any("lessons" in key or "questions" in key for key in chunks if key.startswith("stream-0/again/"))


def summary_of_run(how: dict[str, Any], directory: Path) -> dict[str, Any]:
    return run_experiment(make_settings(how), directory / "run")


def test_a_gate_that_nothing_passes_leaves_the_model_alone(fields, tmp_path):
    how = of(fields, name="stream", groups=1, arms={"gate": {"gate": True}}, gate={"max_kl": 1e-9, "bisections": 2})
    summary = summary_of_run(how, tmp_path)
    arm = summary["arms"]["gate"]
    assert arm["decisions"]["rejected"] == N
    assert all(any("KL to the base" in reason for reason in step["reasons"]) for step in arm["steps"])
    assert list(arm["steps"][0]["tried"]) == ["1", "0.5", "0.25"]
    assert (arm["retained"], arm["general_after"]) == (summary["no_update"], arm["general_before"])


def test_the_gate_looks_at_as_many_merged_edits_as_it_may(fields, tmp_path, monkeypatch):
    """Of a rejected edit there is nothing to lose."""
    seen: list[list[tuple[Task, Change]]] = []

    class Watched(CostMeter):
        def __init__(self, parts, anchors, edit, earlier, before):
            seen.append(list(earlier))
            super().__init__(parts, anchors, edit, earlier, before)

    monkeypatch.setattr(stream, "EARLIER", 1)
    monkeypatch.setattr(stream, "CostMeter", Watched)
    monkeypatch.setattr(stream, "decide", lambda cost, limits: Decision(float(len(seen) != 1)))  # rejects the first
    settings = make_settings(of(fields, name="stream", groups=1, passages=4, arms={"gate": {"gate": True}}))
    run_experiment(settings, tmp_path / "run")
    tasks = open_source(settings).evaluation()
    assert [len(earlier) for earlier in seen] == [0, 0, 1, 1]
    assert seen[2][0][0] == tasks[1]
    assert seen[3][0][0] in tasks[1:3]
    assert all(change.sequences for earlier in seen for _, change in earlier)


def test_passages_that_share_an_adapter_are_one_sample_of_it():
    tasks = [Task(str(i), "", (), ()) for i in range(40)]
    values, groups = [float(i < 20) for i in range(40)], [[str(i + 20 * g) for i in range(20)] for g in (0, 1)]

    def rungs(groups: list[list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
        untouched = Result("no_edit", tasks, [0.0] * 40, [()] * 40, None)
        made = Result("passage_only", tasks, values, [()] * 40, None, groups=groups)
        (difference,) = paired_rows(make_settings({}), {"no_edit": untouched, "passage_only": made}, "round_1")
        return made.row(), difference

    for alone, together in zip(rungs([]), rungs(groups), strict=True):
        assert 0.3 < alone["low"] < alone["high"] < 0.7
        assert (together["low"], together["high"]) == (0, 1)


def test_a_group_in_one_adapter_has_steps_for_each_of_its_passages(fields, tmp_path):
    summary = summary_of_run(of(fields, name="cpt"), tmp_path)
    rows = {row["rung"]: row for row in summary["ladder"]}
    assert list(rows) == ["no_edit", "passage_only", "base_edits", "base_self_qa", "perfect_edits", "in_context"]
    trained = [row for name, row in rows.items() if name not in ("no_edit", "in_context")]
    assert {row["steps"] for row in trained} == {fields["inner"]["steps"]}
    assert {row["n_tasks"] for row in rows.values()} == {2 * N}


def test_a_group_is_trained_on_all_of_its_passages_at_once(fields, tmp_path):
    how = of(fields, name="cpt")
    how["ladder"]["rungs"] = ["no_edit", "passage_only"]
    summary = summary_of_run(how, tmp_path)
    settings = make_settings(how)
    engine, tasks = load_engine(settings), open_source(settings).evaluation()
    examiner, text = Examiner(engine, settings), how["reward"]["validation_text"]
    texts = []
    for start in (0, N):
        group = tasks[start : start + N]
        sequences = tuple(s for task in group for s in passage_change(settings, engine, task).sequences)
        update = settings.inner.recipe.update(sequences, sub_seed(settings.seed, "cpt", "inner", group[0].id))
        update = replace(update, steps=N * update.steps)
        edited = engine.apply([update], on=None).adapter(0)
        texts.append(text_logprob(engine, text, edited))
        for task, answers in zip(group, examiner.answers(group, on=edited), strict=True):
            assert summary["per_task"]["passage_only"][task.id] == examiner.accuracy(task, answers)
    likely = [row["text_logprob"] for row in summary["ladder"]]
    assert likely == [text_logprob(engine, text, None), pytest.approx(sum(texts) / 2)]
    assert likely[0] != likely[1]


def test_a_policy_of_a_run_is_tested_and_not_mistaken_for_another(fields, tmp_path):
    run_experiment(make_settings({**fields, "ladder": {"rungs": ["no_edit"]}}), tmp_path / "trained")
    how = of(fields, name="stream", groups=1, policy=str(tmp_path / "trained"))
    summary = summary_of_run(how, tmp_path)
    assert [row["rung"] for row in summary["ladder"]] == ["no_edit", "round_1", "in_context"]
    (tmp_path / "run" / "summary.json").unlink()
    weights = tmp_path / "trained" / "policy" / "round-1" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises((RunError, SettingsError), match="not those that this evaluation started with"):
        run_experiment(make_settings(how), tmp_path / "run")
    (tmp_path / "trained" / "summary.json").unlink()
    for step in (dry_run, lambda settings: run_experiment(settings, tmp_path / "other")):
        with pytest.raises(SettingsError, match="neither a finished run nor an adapter"):
            step(make_settings(how))


def test_a_policy_is_not_tested_on_tasks_that_it_was_trained_on(fields, tmp_path):
    rows = [{"id": str(i), "context": f"Passage {i}.", "probes": [{"question": "q", "answer": "a"}]} for i in range(40)]
    source = tmp_path / "tasks.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    tasks = {"source": str(source), "per_round": 2, "dev": 2, "evaluation": 6}
    run_experiment(make_settings({**fields, "tasks": tasks, "ladder": {"rungs": ["no_edit"]}}), tmp_path / "trained")
    how = of({**fields, "tasks": tasks}, name="stream", groups=2, policy=str(tmp_path / "trained"))
    with sqlite3.connect(tmp_path / "trained" / "journal.db") as journal:
        seen = {row[0] for row in journal.execute("select task_id from edits")}
    settings = make_settings(how)
    assert not seen & {task.id for task in open_source(settings).evaluation()}
    with pytest.raises(SettingsError, match=r"holds out 6 of .*tasks.jsonl"):
        open_source(make_settings(how | {"protocol": how["protocol"] | {"groups": 3}}))
    for other in ({"evaluation": 9}, {"dev": 3}, {"split": "all"}, {"split_by": "title"}):
        with pytest.raises(SettingsError, match="trained on other tasks"):
            check_policy(make_settings(how | {"tasks": tasks | other}))
    assert check_policy(settings) == ""
    assert "edits.top_p" in check_policy(make_settings(how | {"edits": {**how["edits"], "top_p": 0.5}}))


def test_groups_are_whole_and_what_is_left_over_is_told(fields, tmp_path):
    """A folder's base writes no questions for some passages, and whole groups are what is left."""
    told = []
    run = SimpleNamespace(emit=lambda kind, **data: told.append((kind, data["text"])))
    parts = SimpleNamespace(settings=make_settings(of(fields, name="stream", groups=3)), run=run)
    tasks = list(range(7))
    assert groups_of(parts, tasks) == [[0, 1, 2], [3, 4, 5]]
    assert told == [("warning", "this run has 2 groups of 3 passages, not 3: there are no more passages to test on")]
    with pytest.raises(SettingsError, match=r"lower protocol\.passages: a group has 3, and only 1 passage can"):
        groups_of(parts, tasks[:1])


def test_the_rate_for_passages_is_chosen_on_development_groups(fields, tmp_path):
    how = of(fields, name="cpt")
    how["ladder"] |= {"passage_lr_factors": [1.0, 1e6], "rungs": ["no_edit", "passage_only"]}  # the second one diverges
    summary = summary_of_run(how, tmp_path)
    assert {row["rung"]: row["n_tasks"] for row in summary["ladder"]} == {"no_edit": 2 * N, "passage_only": 2 * N}
    assert summary["ladder"][1]["failed_edits"] == 0


def test_groups_that_come_to_nothing_are_counted_and_told_with_the_reason(fields, tmp_path):
    how = of(fields, name="cpt")
    how["ladder"] |= {"passage_lr_factors": [1e30], "rungs": ["no_edit", "passage_only"]}
    summary = summary_of_run(how, tmp_path)
    assert summary["ladder"][1]["failed_edits"] == 2 * N
    (told,) = [note for note in summary["notes"] if note.startswith("passage_only")]
    assert told.startswith(f"passage_only: {2 * N} edits could not be trained on; the first failed because: ")
    assert "not finite" in told


@pytest.mark.parametrize("name", ["a/b", "", "a-b", "A", "x" * 41])
def test_an_arms_name_is_one_of_a_file(name, fields):
    with pytest.raises(SettingsError, match="arms"):
        make_settings(of(fields, arms={name: {}}))


def test_a_trained_policy_and_rounds_are_not_both_asked_for(fields):
    with pytest.raises(SettingsError, match="set rounds = 0"):
        make_settings({**fields, "protocol": {"policy": "runs/x"}})


@pytest.mark.parametrize("cure", [{"replay": 1.0}, {"rehearsal": 1.0}, {"gate": True}, {"refresh": 2}])
@pytest.mark.parametrize("merge", ["average", "routed"])
def test_cures_of_a_growing_sum_are_refused_where_edits_are_kept_apart(merge, cure):
    with pytest.raises(ValueError, match="need merge = 'sum'"):
        ArmSettings(merge=merge, **cure)


def test_an_edit_has_the_rank_of_its_arm_at_the_same_scale(continual):
    how, directory = continual
    settings = make_settings(how)
    engine, task = load_engine(settings), open_source(settings).evaluation()[0]
    chunks = {key: json.loads(data) for key, _, _, data in journal_of(directory)}
    (edit,) = chunks["stream-0/low/0/propose/0"]["edits"]
    seed = sub_seed(settings.seed, "stream-0", "inner", task.id)
    update = text_change(settings, engine, task, [edit["text"]]).seeded(seed)
    low = replace(update, rank=2, alpha=2 * update.alpha / update.rank)
    assert engine.apply([low], on=None).adapter(0).sha256 == chunks["stream-0/low/0/learn"]["adapter_sha256"]


def test_the_bases_own_texts_are_distilled_where_the_arm_says_so():
    engine = SimpleNamespace(encode_prompt=lambda text: [5], eos_id=2)
    written = SimpleNamespace(once=lambda _key, _compute: {"texts": [[[5, 6, 7], "a text"]]})
    parts: Any = SimpleNamespace(settings=make_settings({}), inner=SimpleNamespace(engine=engine), run=written)
    source: Any = SimpleNamespace(dev=lambda: [], known=lambda _n: [])
    for weight in (0.0, 2.5):
        context = context_of(parts, None, source, ArmSettings(rehearsal=1.0, distill=weight))
        assert context.rehearsal == [TrainSequence((5, 6, 7), (False, True, True), distilled=weight)]
    with pytest.raises(ValueError, match="set rehearsal, too"):
        ArmSettings(distill=1.0)


def test_a_mixture_keeps_an_edits_own_share_and_takes_every_other_line_before_one_twice():
    def line(n: int) -> TrainSequence:
        return TrainSequence((n, n), (False, True))

    update = Update((line(1), line(2), line(3)), steps=4, batch_size=3, lr=0.1, rank=2, alpha=2.0, seed=0)
    partial = replace(update, batch_size=2, steps=5)  # of 3 sequences: 2, 1, 2, 1, 2
    assert len(mixed(partial, [([line(9)], 1.0)], random.Random(0)).sequences) == 8 + 8
    others = [line(10 + n) for n in range(5)]
    made = mixed(update, [(others, 1.0), ([line(99)], 0.5), ([], 2.0)], random.Random(0))
    ids = [sequence.ids[0] for sequence in made.sequences]
    assert made.steps * made.batch_size >= len(ids) == 12 + 12 + 6
    assert [ids.count(n) for n in (1, 2, 3)] == [4, 4, 4]
    assert sorted(ids.count(n) for n in range(10, 15)) == [2, 2, 2, 3, 3]
    assert ids.count(99) == 6
    assert mixed(update, [(others, 0.0), ([], 1.0)], random.Random(0)) is update
    unusable = replace(update, sequences=())
    assert mixed(unusable, [(others, 1.0)], random.Random(0)) is unusable


KILLED_AFTER = {
    "continual": "stream-0/asleep/1/lessons",
    "cpt": "cpt/base_edits/0",
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", KILLED_AFTER)
def test_a_protocol_killed_on_its_way_ends_as_one_that_never_was(name, fields, tmp_path):
    arms = {k: ARMS[k] for k in ("gate", "asleep", "routed")}
    how = of(fields, name=name, groups=1, arms=arms)
    config, out = tmp_path / "p.toml", tmp_path / "run.json"
    config.write_text(tomli_w.dumps(how))
    command = ["evaluate", str(config), "--json-lines", "--out", str(tmp_path / "run"), "--json", str(out)]
    with Command(command, tmp_path) as child:
        wait_for_chunk(child, tmp_path / "run", KILLED_AFTER[name])
        child.send(signal.SIGKILL)
    assert main(command) == 0
    run_experiment(make_settings(how), tmp_path / "whole")
    assert summary_of(tmp_path / "run") == summary_of(tmp_path / "whole")
    assert sorted(journal_of(tmp_path / "run")) == sorted(journal_of(tmp_path / "whole"))
    assert json.loads(out.read_text())["ladder"] == summary_of(tmp_path / "whole")["ladder"]
