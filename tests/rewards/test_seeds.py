"""Which edits get further seeds: the pilot in every round, and with "auto" those whose selection is open."""

from __future__ import annotations

import math

import pytest

from selfedit.config import Settings, make_settings
from selfedit.rewards.seeds import close, close_edits, first_seeds, most_trials, pilot_edits, seed_noise
from selfedit.types import Completion, Edit, Outcome

EDITS = [Edit(task, i, "", "", Completion((), (), (), "", True), 1.0, 1.0, 0, "") for task in ("a", "b") for i in range(3)]


def outcomes_of(values: dict[str, list[float | None]], gain: float = 1.0) -> list[Outcome]:
    """Outcomes with these log-likelihoods, one a seed; None is a failure."""
    return [
        Outcome(edit, n, "diverged", "", (), None, None, None, 0, "")
        if value is None
        else Outcome(edit, n, "ok", "", (), gain, gain, value, 0, "")
        for edit, row in values.items()
        for n, value in enumerate(row)
    ]


def auto(keep: int = 1, margin: float = 1.0, pilot: int = 2) -> Settings:
    return make_settings(
        {
            "inner": {"seeds": "auto"},
            "reward": {"pilot": pilot, "margin": margin},
            "algorithm": {"name": "rest_em", "rest_em": {"keep": keep}},
        }
    )


def ids(edits: list[Edit]) -> list[str]:
    return [edit.id for edit in edits]


def test_the_pilot_goes_from_task_to_task_over_the_usable_edits() -> None:
    outcomes = outcomes_of({edit.id: [None if edit.id == "b#0" else 0.5] for edit in EDITS})
    four, many = (make_settings({"reward": {"pilot": n}}) for n in (4, 8))
    assert ids(pilot_edits(EDITS, outcomes, four)) == ["a#0", "a#1", "b#1", "a#2"]
    assert ids(pilot_edits(EDITS, outcomes, many)) == ["a#0", "a#1", "b#1", "a#2", "b#2"]


@pytest.mark.parametrize("fields", [{"reward": {"pilot": 0}}, {"inner": {"seeds": 2}}])
def test_there_is_no_pilot_where_it_is_off_or_every_edit_has_several_seeds(fields: dict[str, object]) -> None:
    outcomes = outcomes_of({edit.id: [0.5] for edit in EDITS})
    assert pilot_edits(EDITS, outcomes, make_settings(fields)) == []


def test_seeds_go_where_the_choice_is_close() -> None:
    # The pilot (a#0, b#0) moves by .2: a seed's standard deviation is .141, and .2 that of a difference of two single ones.
    values: dict[str, list[float | None]] = {
        "a#0": [0.5, 0.7], "a#1": [0.5], "a#2": [-3.0],
        "b#0": [0.0, 0.2], "b#1": [9.0], "b#2": [None],
    }  # fmt: skip
    pilot = [EDITS[0], EDITS[3]]
    outcomes = outcomes_of(values)
    assert ids(close_edits(EDITS, pilot, outcomes, auto(), n_seeds=1)) == ["a#1"]
    assert ids(close_edits(EDITS, pilot, outcomes, auto(), n_seeds=2)) == ["a#0"]  # in b one stands alone
    assert close_edits(EDITS, pilot, outcomes, auto(margin=0.1), n_seeds=1) == []
    # With two kept the boundary lies lower: in a it is wide, and b has only two usable edits.
    assert close_edits(EDITS, pilot, outcomes, auto(keep=2), n_seeds=1) == []


def test_noise_is_measured_on_the_pilot_alone() -> None:
    outcomes = outcomes_of({"a#0": [9.0, 9.1], "a#1": [5.0, 9.0], "a#2": [0.0]})
    assert close_edits(EDITS, [EDITS[0]], outcomes, auto(margin=1.5), n_seeds=2) == []
    assert ids(close_edits(EDITS, EDITS[:2], outcomes, auto(margin=1.5), n_seeds=2)) == ["a#0", "a#1"]


def test_closeness_is_of_what_edits_are_ranked_by() -> None:
    outcomes = outcomes_of({"a#0": [0.0, 0.1], "a#1": [5.0], "a#2": [9.0]}, gain=0.5)
    by_gain = make_settings(
        {"inner": {"seeds": "auto"}, "algorithm": {"name": "rest_em", "rest_em": {"keep": 1}, "rank_by": ["gain"]}}
    )
    assert close_edits(EDITS, [EDITS[0]], outcomes, auto(), n_seeds=1) == []
    assert ids(close_edits(EDITS, [EDITS[0]], outcomes, by_gain, n_seeds=1)) == ["a#1", "a#2"]  # equal gains


def test_a_seed_that_failed_counts_as_tried_and_an_unmeasured_noise_leaves_all_open() -> None:
    outcomes = outcomes_of({"a#0": [0.0, None], "a#1": [5.0], "a#2": [9.0]})
    assert ids(close_edits(EDITS, [EDITS[0]], outcomes, auto(), n_seeds=1)) == ["a#1", "a#2"]
    assert ids(close_edits(EDITS, [EDITS[0]], outcomes, auto(), n_seeds=2)) == ["a#0"]


@pytest.mark.parametrize(
    ("fields", "first", "most"),
    [
        ({}, 1, 104),
        ({"reward": {"pilot": 0}}, 1, 100),
        ({"reward": {"pilot": 500}}, 1, 200),
        ({"inner": {"seeds": 2}}, 2, 200),
        ({"inner": {"seeds": "auto"}}, 1, 300),
    ],
)
def test_the_arithmetic_of_trials(fields: dict[str, object], first: int, most: int) -> None:
    settings = make_settings(fields)
    assert (first_seeds(settings), most_trials(settings, 100)) == (first, most)


def test_close_are_those_on_both_sides_of_the_boundary() -> None:
    values = {0: [1.0], 1: [0.0], 2: [0.9], 3: [0.5], 4: [0.45], 5: [-math.inf]}
    group = list(values)
    assert close(group, values, noise=0.1, margin=1.0) == [0, 2]  # .1 apart; a standard error is .14
    assert close(group, values, noise=0.1, margin=0.5) == []
    assert close(group, values, noise=0.1, margin=1.0, keep=2) == []  # .4 between the second and the third
    assert close(group, values, noise=0.1, margin=1.0, keep=3) == [3, 4]
    assert close(group, values, noise=0.1, margin=4.0, keep=2) == [0, 2, 3, 4]
    assert close(group, values, noise=math.inf, margin=1.0, keep=2) == [0, 1, 2, 3, 4]  # nothing is known
    assert close(group, values, noise=math.inf, margin=1.0, keep=6) == []
    # More seeds make the error smaller: .1 * sqrt(1/9 + 1/9) = .047.
    assert close([0, 2], {c: values[c] * 9 for c in (0, 2)}, noise=0.1, margin=1.0) == []


def test_a_seeds_noise_is_pooled_over_what_has_several() -> None:
    assert seed_noise([[0.0, 2.0], [5.0, 5.0], [7.0], [math.inf, 1.0]]) == pytest.approx(1.0)  # (2 + 0) / 2
    assert seed_noise([[1.0], []]) == math.inf
