"""Racing: each task's best edit, without training every edit to its end or with every seed.

Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943) drops the worse edits of a task at marks along the way; of
those that reach the end only the ones that can't be told from the best, given how much a seed moves the value, get more seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Protocol, cast

from selfedit.engine.base import LocalEngine
from selfedit.engine.training.fit import Training
from selfedit.errors import SettingsError
from selfedit.inner import Trial
from selfedit.rewards.examiner import Examiner
from selfedit.rewards.seeds import close, seed_noise
from selfedit.types import Adapter


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


def top(group: Sequence[int], values: Mapping[int, float], n: int) -> list[int]:
    """The n best of a group, in the group's order; of equals the first."""
    best = sorted(group, key=lambda c: -values[c])[:n]
    return [c for c in group if c in best]


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
            alive = [top(group, found, math.ceil(plan.keep * len(group))) for group in alive]
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
    return Race([top(group, means, 1)[0] for group in alive], values, trained, noise)


def _add(values: dict[int, list[float]], more: dict[int, float]) -> None:
    for c, value in more.items():
        values[c].append(value if math.isfinite(value) else -math.inf)


@dataclass(frozen=True)
class _Entrants:
    """Candidates in training, and which member of it each of them is (None and nobody where none can be trained on)."""

    training: Training | None
    members: dict[int, int]


@dataclass
class EditRunner:
    """Edits learned on top of ``on``, valued by the mean log-likelihood of their task's gold answers (nats per token).

    One that the engine can't train on, or whose training diverged, is worth minus infinity.
    """

    examiner: Examiner
    trials: Sequence[Trial]
    on: Adapter | None
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
            update = self.trials[c].change.update
            groups.setdefault(max(1, round(fraction * update.steps)) if update else 1, []).append(c)
        return groups

    def repeat(self, candidates: Collection[int], seed: int) -> dict[int, float]:
        """See `Runner`."""
        return self._run(self._enter(sorted(candidates), seed), candidates)

    def _enter(self, candidates: Sequence[int], seed: int) -> _Entrants:
        """Those of the candidates whose updates can be trained on, at their start."""
        engine, updates = cast(LocalEngine, self.examiner.engine), {}
        for c in candidates:
            update = self.trials[c].change.update
            if update and not engine.check(update):
                updates[c] = replace(update, seed=self.trials[c].seed + seed)
        training = engine.training(list(updates.values()), on=self.on) if updates else None
        return _Entrants(training, {c: member for member, c in enumerate(updates)})

    def _run(self, entrants: _Entrants, candidates: Collection[int], until: int | None = None) -> dict[int, float]:
        values = dict.fromkeys(candidates, -math.inf)
        members = {entrants.members[c]: c for c in candidates if c in entrants.members}
        if entrants.training is not None and members:
            bank = entrants.training.run(until=until, members=members)
            tasks = {m: self.trials[c].task for m, c in members.items()}
            valued = self.examiner.likelihoods(bank, tasks, on=self.on)
            values |= {members[m]: value for m, value in valued.items() if m not in bank.failed}
        return values
