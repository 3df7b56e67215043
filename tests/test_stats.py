"""Intervals hold what they promise."""

import math

import numpy as np
import pytest

from selfedit.stats import DRAWS, bootstrap, bootstrap_seeds, ratio_seeds, resampled_sums


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(300):
        interval = bootstrap(rng.random(60), seed=i)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.90 <= covered / 300 <= 0.99


def test_one_value_has_an_interval_of_itself():
    interval = bootstrap([0.25])
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(1)
    alike = [0.5 + 0.01 * rng.standard_normal(100) for _ in range(4)]
    apart = [row + shift for row, shift in zip(alike, (-0.2, -0.1, 0.1, 0.2), strict=True)]
    near, far = bootstrap_seeds(alike), bootstrap_seeds(apart)
    assert far.high - far.low > 10 * (near.high - near.low)


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf")]])
def test_nothing_and_nan_are_refused(values):
    with pytest.raises(ValueError, match="a mean needs"):
        bootstrap(values)


def test_a_ratio_of_proportional_values_is_exact_and_one_by_about_zero_is_none():
    rng = np.random.default_rng(3)
    below = [rng.random(30) + 0.1 for _ in range(3)]
    interval = ratio_seeds([row / 4 for row in below], below)
    assert interval is not None
    assert (interval.low, interval.mean, interval.high) == pytest.approx((0.25, 0.25, 0.25))
    assert ratio_seeds(below, [rng.standard_normal(30) for _ in range(3)]) is None


def test_resampled_sums_draw_whole_tasks():
    parts = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    sums = resampled_sums(parts)
    assert sums.shape == (DRAWS, 2)
    assert np.array_equal(sums[:, 1], 10 * sums[:, 0])  # the columns of a task stay together
    assert sums[:, 0].mean() == pytest.approx(7, rel=0.02)
    assert sums[:, 0].min() == 3
    assert np.array_equal(sums, resampled_sums(parts))
    with pytest.raises(ValueError, match="no task"):
        resampled_sums(parts[:0])


def test_a_ratio_over_draws_of_which_a_few_are_zero_is_finite():
    above, below = [[1.0] * 12], [[0.0] * 9 + [1.0] * 3]  # 3 % of the draws of twelve miss all three
    found = ratio_seeds(above, below)
    assert found is None or math.isfinite(found.high)
    below = [[0.0] * 8 + [1.0] * 4]
    found = ratio_seeds(above, below)
    assert found is not None
    assert found.mean == pytest.approx(3.0)
    assert math.isfinite(found.high)
