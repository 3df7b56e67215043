"""Means with their error: bootstrap intervals over tasks (and seeds), paired differences.

Accuracy is 0..1, the mean over tasks of the mean over their probes. Intervals are 95 % percentile bootstraps (Efron and
Tibshirani 1993, chapter 13); a difference is a - b on the same tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def as_row(found: Interval | None, name: str = "mean") -> dict[str, Any]:
    """The mean under ``name`` and the ends of its interval; None where there is none."""
    return {name: found and found.mean, "low": found and found.low, "high": found and found.high}


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean of per-task ``values`` and its interval over tasks. Raises ValueError without values."""
    return bootstrap_seeds([values], seed)


def bootstrap_seeds(values_by_seed: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """The mean over seeds of the mean over tasks; seeds are drawn with replacement, and tasks within each seed."""
    rows = _checked(values_by_seed)
    low, high = np.percentile(_draws(rows, seed), (2.5, 97.5))
    return Interval(float(np.mean([row.mean() for row in rows])), float(low), float(high))


def ratio_seeds(above: Sequence[Sequence[float]], below: Sequence[Sequence[float]], seed: int = 0) -> Interval | None:
    """mean(above) / mean(below) over seeds and the same tasks, resampled together; None where below's mean may be 0."""
    tops, bottoms = _checked(above), _checked(below)
    if [len(row) for row in tops] != [len(row) for row in bottoms]:
        raise ValueError("a ratio needs the same tasks in both of its parts")
    # The same generator state and shapes: both parts are drawn at the same tasks.
    top, bottom = _draws(tops, seed), _draws(bottoms, seed)
    if np.percentile(bottom, 2.5) <= 0:
        return None
    # Of the draws below a few may be 0 all the same: too few to reach the interval's end, or just as many.
    ratios = np.divide(top, bottom, out=np.full_like(top, np.inf), where=bottom > 0)
    low, high = np.percentile(ratios, (2.5, 97.5))
    if not np.isfinite(high):
        return None
    mean = float(np.mean([r.mean() for r in tops]) / np.mean([r.mean() for r in bottoms]))
    return Interval(mean, float(low), float(high))


def _checked(values_by_seed: Sequence[Sequence[float]]) -> list[NDArray[np.float64]]:
    rows = [np.asarray(values, dtype=float) for values in values_by_seed]
    if not rows or any(len(row) == 0 for row in rows):
        raise ValueError("a mean needs at least one value; no task was evaluated")
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("a mean needs finite values")
    return rows


def _draws(rows: Sequence[NDArray[np.float64]], seed: int) -> NDArray[np.float64]:
    """DRAWS resampled means: tasks within each seed, then seeds."""
    rng = np.random.default_rng(seed)
    resampled = np.stack([_resampled_means(row, rng) for row in rows])  # (seeds, DRAWS)
    picked = rng.integers(0, len(rows), (len(rows), DRAWS))
    return np.take_along_axis(resampled, picked, axis=0).mean(axis=0)  # type: ignore[no-any-return]


def _resampled_means(row: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    return row[rng.integers(0, len(row), (DRAWS, len(row)))].mean(axis=1)


def resampled_sums(parts: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Sums over tasks drawn with replacement: ``parts`` (n_tasks, P), a row a task, gives (DRAWS, P).

    For whatever is computed from sums over tasks (pooled variances, ratios). Raises ValueError without tasks.
    """
    if not len(parts):
        raise ValueError("there is no task to draw")
    drawn = np.random.default_rng(seed).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=DRAWS)
    return np.asarray(drawn @ parts, dtype=float)
