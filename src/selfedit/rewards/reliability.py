"""How much of a reward is signal: the reliability of an edit's mean over seeds, between the edits of one task.

The same edit, trained with another seed, gets another reward. A part of the observed variance between the means of a task's
edits is only that noise; reliability is the share that remains (ICC(1, n) of Shrout and Fleiss 1979)::

    (observed variance of the means - variance within an edit / seeds) / observed variance

Observed variance is pooled over tasks, variance within over edits: sums of squares over degrees of freedom. Where edits have
unequal numbers of seeds, 1 / seeds is averaged over a task's edits, and over tasks with the weight that each has in the
observed variance; so the noise that is subtracted is, on average, the noise that the observed variance contains.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..stats import resampled_sums
from ..types import Edit, Outcome

Quantity = Literal["reward", "gain", "logprob", "probability"]
# The rewards of a task: for each edit its value with each seed; None for a seed that failed.
TaskValues = Sequence[Sequence[float | None]]
GOAL = 0.8
_ROUNDING = 1e-18  # a sum of squares below it is the rounding of equal rewards, not a difference
_MOST_UNMEASURABLE = 0.05  # of the bootstrap's draws


@dataclass(frozen=True)
class Reliability:
    """What could be measured (`rows.ReliabilityRow` describes the fields); None for the rest, never NaN.

    A ``var_between`` at or below 0 means that no difference shows. Intervals are bootstraps over tasks.
    """

    reliability: float | None
    low: float | None
    high: float | None
    var_within: float | None
    var_observed: float | None
    var_between: float | None
    seeds_for_80: int | None
    seeds_low: int | None
    seeds_high: int | None
    n_edits: int
    n_tasks: int

    def row(self, of: Quantity) -> dict[str, Any]:
        """For a summary; ``of`` says which quantity it is the reliability of."""
        return {"of": of, **asdict(self)}


def values_by_edit(outcomes: Sequence[Outcome], quantity: Quantity) -> dict[str, list[float]]:
    """``quantity`` of every edit (by its id) with each seed that did not fail; edits without one are absent."""
    values: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        value: float | None = getattr(outcome, quantity)
        if value is not None:
            values[outcome.edit_id].append(value)
    return dict(values)


def values_of(edits: Sequence[Edit], outcomes: Sequence[Outcome], quantity: Quantity) -> list[list[list[float]]]:
    """``quantity`` of every task's edits, with each seed that did not fail: ``values[task][edit][seed]``."""
    by_edit = values_by_edit(outcomes, quantity)
    by_task: dict[str, list[list[float]]] = defaultdict(list)
    for edit in edits:
        by_task[edit.task_id].append(by_edit.get(edit.id, []))
    return list(by_task.values())


def measure(tasks: Sequence[TaskValues]) -> Reliability:
    """The reliability of the edits' means in ``tasks[task][edit][seed]``; failed seeds (None) count for nothing."""
    finite = [[[v for v in edit if v is not None and math.isfinite(v)] for edit in task] for task in tasks]
    usable = [[edit for edit in task if edit] for task in finite]
    parts = np.array([_parts(task) for task in usable], dtype=float).reshape(-1, 5)
    observed, within, between = (float(x) if np.isfinite(x) else None for x in _components(parts.sum(axis=0)))
    compared = [task for task in usable if len(task) > 1]
    share = between / observed if between is not None and observed else None
    low, high, fewest, most = _intervals(parts) if share is not None else (None,) * 4
    return Reliability(
        reliability=share,
        low=low,
        high=high,
        var_within=within,
        var_observed=observed,
        var_between=between,
        seeds_for_80=None if between is None or within is None else _seeds(_needed(within, between)),
        seeds_low=_seeds(fewest),
        seeds_high=_seeds(most),
        n_edits=sum(map(len, compared)),
        n_tasks=len(compared),
    )


def _parts(edits: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """What a task adds: squares and degrees of freedom between its edits, the latter over seeds, and the same within."""
    between = len(edits) - 1 if len(edits) > 1 else 0
    squares = _squares([fmean(values) for values in edits]) if between else 0.0
    over_seeds = between * fmean(1 / len(values) for values in edits) if between else 0.0
    return squares, between, over_seeds, sum(map(_squares, edits)), sum(len(values) - 1 for values in edits)


def _squares(values: Sequence[float]) -> float:
    """The sum of squares around the mean, the same in any order of the values."""
    mean = fmean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return 0.0 if squares < _ROUNDING else squares


def _components(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Variances (observed, within, between) of summed parts, shape (..., 5); NaN where there is nothing to measure."""
    squares, free, over_seeds, squares_within, free_within = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed, within = squares / free, squares_within / free_within
        return observed, within, observed - within * over_seeds / free


def _needed(within: float, between: float) -> float:
    """Seeds for the goal: between / (between + within / seeds) = GOAL (Spearman and Brown 1910)."""
    return GOAL / (1 - GOAL) * within / between if between > 0 else math.inf


def _seeds(needed: float | None) -> int | None:
    """A whole number of seeds, at least 1; None where no number will do."""
    return None if needed is None or math.isinf(needed) else max(1, math.ceil(needed - 1e-9))


def _intervals(parts: NDArray[np.float64]) -> tuple[float | None, ...]:
    """95 % intervals over tasks, of the reliability and of the seeds needed; None where too few draws can be measured."""
    observed, within, between = _components(resampled_sums(parts))
    measured = np.isfinite(between) & (observed > 0)
    if len(parts) < 2 or np.mean(~measured) > _MOST_UNMEASURABLE:
        return (None,) * 4
    share = between[measured] / observed[measured]
    needed = [_needed(w, b) for w, b in zip(within[measured], between[measured], strict=True)]
    ends = [float(x) for x in np.percentile(share, (2.5, 97.5))]
    # Of numbers that may be infinite, a quantile must be one of them, not a mean of two.
    return *ends, *(float(x) for x in np.quantile(needed, (0.025, 0.975), method="inverted_cdf"))
