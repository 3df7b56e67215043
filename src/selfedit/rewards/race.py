"""Racing: each task's best edit, without training every edit to its end or with every seed.

Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) drops the worse edits of a task at marks along the way; of
those that reach the end only the ones that can't be told from the best, given how much a seed moves the value, get more seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from ..engine.base import Training
from ..errors import SettingsError
from .outcomes import Rewarder, Trial


@dataclass(frozen=True)
class RacePlan:
    """``marks``: fractions of the steps at which the best ``keep`` of a task's edits go on. ``seeds``: at most, for an edit.

    An edit is close while its mean lies within ``margin`` standard errors of the best one's. A seed's standard deviation is
    measured on the first ``pilot`` tasks, all of whose finalists get a second seed.
    """

    marks: tuple[float, ...] = (0.25, 0.5)
    keep: float = 0.5
    seeds: int = 3
    margin: float = 1.0
    pilot: int = 8

    def __post_init__(self) -> None:
        marks = (0.0, *self.marks, 1.0)
        if any(a >= b for a, b in itertools.pairwise(marks)):
            raise SettingsError(f"marks {self.marks} must rise, between 0 and 1")
        if not 0 < self.keep <= 1 or self.seeds < 1 or self.margin < 0 or self.pilot < 1:
            raise SettingsError(f"{self}: keep is in (0, 1], seeds and pilot are at least 1, margin at least 0")


class Runner(Protocol):
    """What a race needs to know of its candidates, by their numbers."""

    def advance(self, fraction: float, candidates: Collection[int]) -> dict[int, float]:
        """Train these with their first seed up to ``fraction`` of their steps; their values then (higher is better)."""
        ...

    def repeat(self, candidates: Collection[int], seed: int) -> dict[int, float]:
        """Train these from the start to the end with seed number ``seed`` (0 is `advance`'s); their values."""
        ...


@dataclass
class Race:
    """The outcome: ``best[g]`` is the winner of group g, ``values`` what each finalist got, a value a seed.

    ``trained`` counts whole trainings, parts added up; ``noise`` is a seed's standard deviation (nan where not measured).
    """

    best: list[int]
    values: dict[int, list[float]]
    trained: float
    noise: float = math.nan


def race(groups: Sequence[Sequence[int]], runner: Runner, plan: RacePlan) -> Race:
    """The best candidate of every group; all groups go through a mark together, so that their work fills the engine.

    A candidate whose value is not finite is dropped first; a group needs at least one candidate.
    """
    alive = [list(group) for group in groups]
    trained = before = 0.0
    found: dict[int, float] = {}
    for mark in (*plan.marks, 1.0):
        going = [c for group in alive for c in group]
        found = {c: v if math.isfinite(v) else -math.inf for c, v in runner.advance(mark, going).items()}
        trained += (mark - before) * len(going)
        before = mark
        if mark < 1:
            alive = [_top(group, found, math.ceil(plan.keep * len(group))) for group in alive]
    values = {c: [found[c]] for group in alive for c in group}
    noise = math.nan
    if plan.seeds > 1:
        pilot = [c for group in alive[: plan.pilot] if len(group) > 1 for c in group]
        _add(values, runner.repeat(pilot, 1) if pilot else {})
        noise = seed_noise([values[c] for c in pilot])
        trained += len(pilot)
    for seed in range(1, plan.seeds):
        open_groups = alive if seed > 1 else alive[plan.pilot :]
        again = [c for group in open_groups for c in close(group, values, noise, plan.margin)]
        _add(values, runner.repeat(again, seed) if again else {})
        trained += len(again)
    means = {c: fmean(v) for c, v in values.items()}
    return Race([_top(group, means, 1)[0] for group in alive], values, trained, noise)


def _top(group: Sequence[int], values: dict[int, float], n: int) -> list[int]:
    """The n best of a group, in the group's order; of equals the first."""
    best = sorted(group, key=lambda c: -values[c])[:n]
    return [c for c in group if c in best]


def close(
    group: Sequence[int], values: dict[int, list[float]], noise: float, margin: float, keep: int = 1
) -> list[int]:
    """Those of a group that may or may not belong to its ``keep`` best, in the group's order; nobody where that is clear.

    One of the best and one of the others are close while their means (of ``values``, one a seed) differ by at most ``margin``
    standard errors; ``noise`` is a single seed's standard deviation.
    """
    means = {c: fmean(values[c]) for c in group}
    kept = _top(group, means, keep)
    others = [c for c in group if c not in kept and math.isfinite(means[c])]

    def unsure(better: int, worse: int) -> bool:
        error = noise * math.sqrt(1 / len(values[better]) + 1 / len(values[worse]))
        return means[better] - means[worse] <= margin * error

    in_question = {c for pair in itertools.product(kept, others) if unsure(*pair) for c in pair}
    return [c for c in group if c in in_question]


def _add(values: dict[int, list[float]], more: dict[int, float]) -> None:
    for c, value in more.items():
        values[c].append(value if math.isfinite(value) else -math.inf)


def seed_noise(pairs: Sequence[Sequence[float]]) -> float:
    """The standard deviation of one value around its candidate's mean, pooled; infinite where there is nothing to pool."""
    finite = [v for v in pairs if len(v) > 1 and all(map(math.isfinite, v))]
    if not finite:
        return math.inf
    spread = sum(sum((x - fmean(v)) ** 2 for x in v) for v in finite)
    return math.sqrt(spread / sum(len(v) - 1 for v in finite))


@dataclass(frozen=True)
class _Entrants:
    """Candidates in training, and which member of it each of them is (None and nobody where none can be trained on)."""

    training: Training | None
    members: dict[int, int]


@dataclass
class EditRunner:
    """Edits on an engine, valued by the mean log-likelihood of their task's gold answers (nats a token).

    One that the engine can't train on, or whose training diverged, is worth minus infinity.
    """

    rewarder: Rewarder
    trials: Sequence[Trial]
    _first: _Entrants | None = field(default=None, init=False)
    _reached: float = field(default=0.0, init=False)

    def advance(self, fraction: float, candidates: Collection[int]) -> dict[int, float]:
        """See `Runner`; all candidates of a race begin in the first call.

        Raises:
            SettingsError: ``fraction`` lies before the last call's; a training can't go backwards.
        """
        if fraction < self._reached:
            raise SettingsError(
                f"the race has reached {self._reached} of the steps and can't go back to {fraction}; make a new EditRunner"
            )
        self._reached = fraction
        if self._first is None:
            self._first = self._enter(range(len(self.trials)), 0)
        values: dict[int, float] = {}
        for until, some in self._by_step(fraction, candidates).items():
            values |= self._run(self._first, some, until)
        return values

    def _by_step(self, fraction: float, candidates: Collection[int]) -> dict[int, list[int]]:
        """The candidates by where that fraction of their steps ends: one place for all, unless steps are counted in epochs."""
        groups: dict[int, list[int]] = {}
        for c in candidates:
            steps = self.rewarder.settings.inner.steps_for(len(self.trials[c].parsed.sequences))
            groups.setdefault(max(1, round(fraction * steps)), []).append(c)
        return groups

    def repeat(self, candidates: Collection[int], seed: int) -> dict[int, float]:
        """See `Runner`."""
        return self._run(self._enter(sorted(candidates), seed), candidates)

    def _enter(self, candidates: Sequence[int], seed: int) -> _Entrants:
        """Those of the candidates whose updates can be trained on, at their start."""
        engine, updates = self.rewarder.engine, {}
        for c in candidates:
            update = self.rewarder.update_for(self.trials[c].parsed, self.trials[c].seed + seed)
            if not engine.check(update):
                updates[c] = update
        training = engine.training(list(updates.values())) if updates else None
        return _Entrants(training, {c: member for member, c in enumerate(updates)})

    def _run(self, entrants: _Entrants, candidates: Collection[int], until: int | None = None) -> dict[int, float]:
        values = dict.fromkeys(candidates, -math.inf)
        members = {entrants.members[c]: c for c in candidates if c in entrants.members}
        if entrants.training is not None and members:
            bank = entrants.training.run(until=until, members=members)
            valued = self.rewarder.likelihoods(bank, {m: self.trials[c].task for m, c in members.items()})
            values |= {members[m]: value for m, value in valued.items() if m not in bank.failed}
        return values
