"""How much of a reward is signal: against known variances, with seeds missing, and with nothing to measure."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.rewards.reliability import measure, values_of
from selfedit.types import Completion, Edit, Outcome

Tasks = list[list[list[float | None]]]


def simulated(n_tasks: int, seeds: Callable[[int], int], between: float, within: float, seed: int = 0) -> Tasks:
    """Tasks of 5 edits around a mean of their own; edit i of each gets ``seeds(i)`` values."""
    rng = random.Random(seed)
    tasks: Tasks = []
    for _ in range(n_tasks):
        level = rng.gauss(0, 3)
        edits = [level + rng.gauss(0, between) for _ in range(5)]
        tasks.append([[edit + rng.gauss(0, within) for _ in range(seeds(i))] for i, edit in enumerate(edits)])
    return tasks


def test_the_definition_with_equal_numbers_of_seeds() -> None:
    tasks = simulated(7, lambda i: 3, 1.0, 1.0)
    observed = fmean(variance([fmean(edit) for edit in task]) for task in tasks)
    within = fmean(variance(edit) for task in tasks for edit in task)
    found = measure(tasks)
    assert found.var_observed == pytest.approx(observed)
    assert found.var_within == pytest.approx(within)
    assert found.var_between == pytest.approx(observed - within / 3)
    assert found.reliability == pytest.approx((observed - within / 3) / observed)
    assert (found.n_tasks, found.n_edits) == (7, 35)


def test_known_variances_are_found_also_with_unequal_and_missing_seeds() -> None:
    tasks = simulated(3000, lambda i: 1 + i % 3, between=0.5, within=1.0)
    for task in tasks[::4]:
        task[1][0] = None  # one of two seeds failed
        task[4] = [None, None]  # all of an edit's seeds failed
    found = measure(tasks)
    assert found.var_within == pytest.approx(1.0, rel=0.05)
    assert found.var_between == pytest.approx(0.25, rel=0.1)
    assert found.seeds_for_80 in (15, 16, 17)  # 4 * 1 / .25
    assert found.n_edits == 3000 * 5 - 750


def test_seeds_for_80_reach_it_and_one_less_does_not() -> None:
    found = measure(simulated(300, lambda i: 2, 1.0, 1.3))
    assert found.var_between
    assert found.var_within
    assert found.seeds_for_80
    reached = [
        found.var_between / (found.var_between + found.var_within / n) for n in (found.seeds_for_80 - 1, found.seeds_for_80)
    ]
    assert reached[0] < 0.8 <= reached[1]


def test_exact_repetitions_need_one_seed() -> None:
    found = measure([[[0.1, 0.1], [0.5, 0.5]], [[0.3, 0.3], [0.4, 0.4]]])
    assert (found.reliability, found.var_within, found.seeds_for_80) == (1.0, 0.0, 1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 1 / (1 + 1 / 2)
    found = [measure(simulated(40, lambda i: 2, 1.0, 1.0, seed)) for seed in range(100)]
    hits = sum(f.low is not None and f.high is not None and f.low <= truth <= f.high for f in found)
    assert 85 <= hits <= 100
    assert all((f.seeds_low or 0) <= (f.seeds_for_80 or 0) <= (f.seeds_high or math.inf) for f in found)


def test_differences_that_are_noise_alone_need_no_number_of_seeds() -> None:
    # Within an edit the seeds differ by 2, the edits' means not even by that.
    found = measure([[[0.0, 2.0], [0.1, 2.1]], [[1.0, 3.0], [1.0, 3.1]]])
    assert found.reliability is not None
    assert found.reliability < 0
    assert found.seeds_for_80 is None


@pytest.mark.parametrize(
    ("tasks", "known"),
    [
        ([], set()),
        ([[]], set()),
        ([[[0.1]], [[0.2]]], set()),  # nothing to compare with, no second seed
        ([[[0.1], [0.3]]], {"var_observed"}),
        ([[[0.1, 0.3]]], {"var_within"}),
        ([[[0.1, 0.3], [None, None]]], {"var_within"}),
        ([[[0.1, 0.2], [0.2, 0.1]]], {"var_within", "var_observed", "var_between"}),  # equal means
        ([[[0.1 + 0.2, 0.0], [0.3, 0.0]]], {"var_within", "var_observed", "var_between"}),  # equal but for rounding
        ([[[math.nan, 0.2], [math.inf]]], set()),
    ],
)
def test_what_cannot_be_measured_is_none(tasks: Tasks, known: set[str]) -> None:
    row = measure(tasks).row("gain")
    json.dumps(row, allow_nan=False)
    measured = {name for name, value in row.items() if name not in ("of", "n_edits", "n_tasks") and value is not None}
    assert measured == known


@given(
    st.lists(
        st.lists(st.lists(st.one_of(st.none(), st.floats(-10, 10)), max_size=4), max_size=5),
        max_size=6,
    )
)
def test_no_values_give_nan_and_the_order_of_seeds_does_not_matter(tasks: Tasks) -> None:
    found = measure(tasks)
    json.dumps(found.row("logprob"), allow_nan=False)
    assert measure([[list(reversed(edit)) for edit in task] for task in tasks]) == found


def test_outcomes_are_sorted_by_task_and_edit_and_failures_left_out() -> None:
    edits = [Edit(task, i, "", "", Completion((), (), (), "", True), 1.0, 1.0, 0, "") for task in ("a", "b") for i in (0, 1)]
    tried = [("a#0", 0.5), ("b#1", 0.1), ("a#0", None), ("a#0", 0.75)]
    outcomes = [
        Outcome(edit, n, "ok" if gain is not None else "diverged", "", (), gain, gain, gain, 0, "")
        for n, (edit, gain) in enumerate(tried)
    ]
    assert values_of(edits, outcomes, "gain") == [[[0.5, 0.75], []], [[], [0.1]]]


def test_the_published_round_is_a_third_signal(shared_data: Callable[[str], Path]) -> None:
    articles = json.loads(shared_data("seal/rank_iter0.json").read_text())["articles"]

    def accuracies(completion: dict) -> list[float | None]:
        answers = completion["questions"]
        return [fmean(a["adapter_correct"] for a in answers if a["rep"] == rep) for rep in range(3)]

    found = measure([[accuracies(c) for c in article["completions"]] for article in articles])
    assert found.reliability == pytest.approx(0.32, abs=0.005)
    assert found.var_within == pytest.approx(0.0367, abs=5e-5)
    assert found.var_observed == pytest.approx(0.0179, abs=5e-5)
    assert found.seeds_for_80 == 26
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 0.32 < found.high < 0.6
    assert (found.n_tasks, found.n_edits) == (50, 250)
