"""Which edits are cloned: means over the seeds that did not fail, ties to the first, and a round's shares by edit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfedit.algorithms.base import judge
from selfedit.algorithms.rest_em import _weights, select
from selfedit.config import AlgorithmSettings
from selfedit.loop import _shares
from selfedit.types import Answer, Completion, Edit, Outcome

EDITS = [Edit("t", i, "", "", Completion((), (), (), "", True), 1.0, 1.0, 0, "") for i in range(3)]


def outcomes_of(rewards: list[list[float | None]], baseline: float = 0.0) -> list[Outcome]:
    """Outcomes of EDITS with these rewards, one a seed; None is a failure."""
    return [
        Outcome(edit.id, n, "diverged", "it diverged", (), None, None, None, 0, "")
        if reward is None
        else Outcome(edit.id, n, "ok", "", (), reward, reward - baseline, -reward, 0, "")
        for edit, row in zip(EDITS, rewards, strict=True)
        for n, reward in enumerate(row)
    ]


def test_an_edit_is_worth_the_mean_of_the_seeds_that_did_not_fail() -> None:
    judged = judge(EDITS, outcomes_of([[0.5, None, 1.0], [0.25], [None]], baseline=0.25))
    assert [(j.reward, j.gain, j.logprob) for j in judged] == [
        (0.75, 0.5, -0.75),
        (0.25, 0.0, -0.25),
        (None, None, None),
    ]


def test_of_equals_the_first_is_kept_whatever_the_order_of_their_seeds() -> None:
    # As floats, .1 + .2 + .3 is more than .3 + .2 + .1.
    judged = judge(EDITS, outcomes_of([[0.3, 0.2, 0.1], [0.1, 0.2, 0.3], [0.2, 0.2, 0.2]]))
    kept = select(judged, AlgorithmSettings(keep=1, rank_by=("gain",)))
    assert [j.edit.index for j in kept] == [0]


def test_rounding_is_no_gain() -> None:
    judged = judge(EDITS, outcomes_of([[0.1 + 0.2], [0.3], [None]], baseline=0.3))
    assert select(judged, AlgorithmSettings(positive_only=True)) == []


def test_an_edit_counts_once_in_a_rounds_means_however_many_seeds_it_had() -> None:
    outcomes = outcomes_of([[1.0, 0.8, 0.9], [0.1], [None]])
    shares = _shares(EDITS, judge(EDITS, outcomes), outcomes, selected=1)
    assert shares["mean_reward"] == shares["mean_gain"] == pytest.approx(0.5)
    assert (shares["valid_share"], shares["selected_share"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (shares["failures"], shares["n_edits"]) == (["it diverged"], 3)


def test_a_gain_has_to_stand_out_of_the_noise_of_seeds_where_asked() -> None:
    judged = judge(EDITS, outcomes_of([[0.9, 1.1], [0.1, 0.3], [-0.2, 0.0]]))
    noise = 0.1 * 2**0.5  # of one seed: each pair lies .2 apart
    assert [j.error for j in judged] == pytest.approx([noise / 2**0.5] * 3)
    for confidence, kept in ((0.0, [0, 1]), (1.0, [0, 1]), (2.5, [0])):
        settings = AlgorithmSettings(keep=3, rank_by=("gain",), confidence=confidence)
        assert [j.edit.index for j in select(judged, settings)] == kept


def test_all_correct_keeps_edits_that_made_every_probe_right() -> None:
    outcomes = outcomes_of([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    right = [[True, True], [True, False], [True, True]]
    answered = [replace(o, answers=(Answer("q", "a", "a", right[i // 2][i % 2], 0.0),)) for i, o in enumerate(outcomes)]
    settings = AlgorithmSettings(keep=3, rank_by=("gain",), all_correct=True)
    assert [j.edit.index for j in select(judge(EDITS, answered), settings)] == [0, 2]


def test_winners_are_weighted_by_what_they_gained_also_where_a_level_ranks_them() -> None:
    judged = judge(EDITS, outcomes_of([[-2.0], [-1.0], [-4.0]], baseline=-3.0))
    by_level = AlgorithmSettings(rank_by=("reward",), weighted=True)
    assert _weights(judged, by_level) == pytest.approx([1.0, 2.0, 0.0])
    assert _weights(judged, by_level.model_copy(update={"weighted": False})) == [1.0] * 3
