"""Which edits are cloned: means over the seeds that did not fail, ties to the first, and a round's shares by edit."""

from __future__ import annotations

import pytest

from selfedit.algorithms.base import rate
from selfedit.algorithms.rest_em import select
from selfedit.config import AlgorithmSettings, make_settings
from selfedit.loop import round_shares
from selfedit.types import Completion, Edit, Outcome

EDITS = [Edit("t", i, "", "", Completion((), (), (), "", True), 1.0, 1.0, 0, "") for i in range(3)]


def how(**own: object) -> AlgorithmSettings:
    return make_settings({"algorithm": {"name": "rest_em", "rank_by": ["gain"], "rest_em": own}}).algorithm


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
    rated = rate(EDITS, outcomes_of([[0.5, None, 1.0], [0.25], [None]], baseline=0.25))
    assert [(j.reward, j.gain, j.logprob) for j in rated] == [
        (0.75, 0.5, -0.75),
        (0.25, 0.0, -0.25),
        (None, None, None),
    ]


def test_of_equals_the_first_is_kept_whatever_the_order_of_their_seeds() -> None:
    # As floats, .1 + .2 + .3 is more than .3 + .2 + .1.
    rated = rate(EDITS, outcomes_of([[0.3, 0.2, 0.1], [0.1, 0.2, 0.3], [0.2, 0.2, 0.2]]))
    kept = select(rated, how(keep=1))
    assert [j.edit.index for j in kept] == [0]


def test_rounding_is_no_gain() -> None:
    rated = rate(EDITS, outcomes_of([[0.1 + 0.2], [0.3], [None]], baseline=0.3))
    assert select(rated, how(positive_only=True)) == []


def test_an_edit_counts_once_in_a_rounds_means_however_many_seeds_it_had() -> None:
    outcomes = outcomes_of([[1.0, 0.8, 0.9], [0.1], [None]])
    shares = round_shares(EDITS, rate(EDITS, outcomes), outcomes, selected=1)
    assert shares["mean_reward"] == shares["mean_gain"] == pytest.approx(0.5)
    assert (shares["valid_share"], shares["selected_share"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (shares["failures"], shares["n_edits"]) == (["it diverged"], 3)
