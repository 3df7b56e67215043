"""Runs of several seeds as one result."""

import pytest
from sample_summary import minimal_summary

from selfedit.config import make_settings
from selfedit.errors import RunError
from selfedit.evaluation.pooled import pool
from selfedit.summary import SCHEMA_VERSION, new_summary, read_summary


def summary(seed, shift):
    """Three rungs on ten tasks; base_edits has nine of them. Round 1 gains ``shift``, perfect edits twice as much."""
    base = {f"{seed}-{i}": i / 20 for i in range(9)}
    after = {f"{seed}-{i}": i / 20 + shift for i in range(10)}
    perfect = {task: value + shift for task, value in after.items()}
    per_task = {"base_edits": base, "round_1": after, "perfect_edits": perfect}
    row = {
        **minimal_summary()["ladder"][0],
        "steps": 16,
        "n_probes": 20,
        "failed_edits": 1,
        "trained_tokens": 100 + seed,
    }
    return {
        **minimal_summary(),
        "seed": seed,
        "ladder": [{**row, "rung": name, "n_tasks": len(tasks)} for name, tasks in per_task.items()],
        "paired": [{"a": "round_1", "b": "base_edits", "difference": shift, "low": 0.0, "high": 1.0}],
        "per_task": per_task,
        "settings": make_settings({"seed": seed}).model_dump(mode="json"),
        "settings_sha256": str(seed),
        "base_sha256_before": "b",
    }


def pooled_of(*runs):
    """The runs' pooled result, which is also written and read without a change."""
    pooled = pool([new_summary(run) for run in runs])
    assert read_summary(pooled.to_dict()) == pooled
    assert pooled.schema_version == SCHEMA_VERSION
    return pooled


def by_rung(pooled):
    return {row.rung: row for row in pooled.ladder}


def test_means_are_over_seeds_and_differences_over_the_tasks_that_both_rungs_have():
    pooled = pooled_of(summary(1, 0.1), summary(2, 0.3))
    ladder = by_rung(pooled)
    assert ladder["base_edits"].accuracy == pytest.approx(0.2)
    assert (ladder["base_edits"].n_tasks, ladder["round_1"].n_tasks) == (18, 20)
    (pair,) = pooled.paired
    assert pair.difference == pytest.approx(0.2)
    assert (pair.low, pair.high) == pytest.approx((0.1, 0.3))  # the seeds' own, as tasks do not differ
    assert pair.by_seed == pytest.approx((0.1, 0.3))
    assert pooled.share_of_possible.mean == pytest.approx(0.5)
    assert [row.seed for row in pooled.seeds] == [1, 2]
    assert "seed" not in pooled.settings


@pytest.mark.parametrize("change", ["settings", "targets", "base", "seed"])
def test_runs_that_are_not_one_experiment_are_refused(change):
    one, other = summary(1, 0.1), summary(2, 0.1)
    if change == "settings":
        other["settings"] = make_settings({"seed": 2, "inner": {"steps": 17}}).model_dump(mode="json")
    elif change == "targets":  # unlike what the machine decides
        settings = make_settings({"seed": 2, "model": {"targets": "all-linear"}})
        other["settings"] = settings.model_dump(mode="json")
    elif change == "base":
        other["base_sha256_before"] = "c"
    else:
        other["seed"] = 1
    said = {
        "settings": "inner.steps",
        "targets": r"model\.targets",
        "base": "base_sha256",
        "seed": "two runs have the same seed",
    }
    with pytest.raises(RunError, match=said[change]):
        pooled_of(one, other)


def test_seeds_that_met_different_machines_are_pooled_and_that_is_said():
    one, other = summary(1, 0.1), summary(2, 0.1)
    for each, dtype, members in ((one, "fp32", 8), (other, "bf16", 4)):
        settings = make_settings({"seed": each["seed"]}).on_machine(dtype=dtype, members_at_once=members)
        each["settings"] = settings.model_dump(mode="json")
    assert pooled_of(one, other).notes == ("The seeds were computed in different ways (model.dtype: bf16, fp32).",)


def test_nothing_to_pool_is_an_error():
    with pytest.raises(RunError, match="no runs"):
        pool([])


def test_a_single_run_keeps_its_own_numbers():
    one = summary(3, 0.2)
    pooled = pooled_of(one)
    assert [row.accuracy for row in pooled.ladder] == pytest.approx([0.2, 0.425, 0.625])


def test_tasks_that_could_not_be_graded_are_left_out_of_pairs_and_ratios_by_name():
    one, other = summary(1, 0.1), summary(2, 0.3)
    del one["per_task"]["round_1"]["1-0"]  # each rung has lost another task: equal counts, unequal tasks
    one["per_task"]["base_edits"]["1-9"] = 0.5
    one["per_task"]["perfect_edits"]["1-0"] = 100.0
    other["per_task"]["perfect_edits"].pop("2-3")
    one["ladder"][1]["ungraded_tasks"] = 1
    pooled = pooled_of(one, other)
    assert pooled.share_of_possible.mean == pytest.approx((0.85 / 9 + 0.3) / (1.75 / 9 + 0.6))
    ladder = by_rung(pooled)
    assert ladder["round_1"].ungraded_tasks == 1
    (pair,) = pooled.paired
    assert pair.by_seed == pytest.approx((0.85 / 9, 0.3))


def test_a_seed_that_could_grade_nothing_of_a_rung_is_missing_and_counted():
    one, other = summary(1, 0.1), summary(2, 0.3)
    one["per_task"]["base_edits"] = {}
    one["paired"] = []
    pooled = pooled_of(one, other)
    (pair,) = pooled.paired
    assert (pair.difference, pair.by_seed) == (pytest.approx(0.3), (None, pytest.approx(0.3)))
    ladder = by_rung(pooled)
    assert (ladder["base_edits"].n_seeds, ladder["round_1"].n_seeds) == (1, 2)
    other["per_task"]["base_edits"] = {}
    other["paired"] = []
    nothing = pooled_of(one, other)
    assert (nothing.paired, nothing.share_of_possible) == ((), None)
    assert nothing.ladder[0].accuracy is None


def test_a_judge_may_be_reached_in_another_way_and_may_not_be_another():
    one, other = summary(1, 0.1), summary(2, 0.1)
    judge = {"model": "m", "url": "http://one/v1", "budget": 5}
    one["settings"] = make_settings({"seed": 1, "reward": {"judge": judge}}).model_dump(mode="json")
    moved = judge | {"url": "http://two/v1", "budget": 6}
    other["settings"] = make_settings({"seed": 2, "reward": {"judge": moved}}).model_dump(mode="json")
    assert pooled_of(one, other).ladder
    another = make_settings({"seed": 2, "reward": {"judge": judge | {"model": "n"}}})
    other["settings"] = another.model_dump(mode="json")
    with pytest.raises(RunError, match=r"reward\.judge\.model"):
        pooled_of(one, other)


def test_a_rung_that_a_seed_has_not_is_left_out_and_that_is_said():
    for of_first in (True, False):
        one, other = summary(1, 0.1), summary(2, 0.3)
        lacking = one if of_first else other
        lacking["ladder"].pop(0)
        del lacking["per_task"]["base_edits"]
        lacking["paired"] = []
        pooled = pooled_of(one, other)
        assert [row.rung for row in pooled.ladder] == ["round_1", "perfect_edits"]
        assert (pooled.paired, pooled.share_of_possible) == ((), None)
        assert pooled.notes == (f"The rung base_edits is left out: the run of seed {lacking['seed']} does not have it.",)
