"""Which edits are tried, and with how many seeds: as many as the settings say, a second one for a pilot, or more.

With ``reward.proxy`` a cheap reward, without an inner loop, ranks a context's edits first, and only the best are tried:
``in_context`` is how likely the gold answers are with the edit in view, in the passage's place (`Examiner.in_view`).

One seed per edit shows nothing about noise, so in every round a few edits get a second one (the pilot). With
``inner.seeds = "auto"`` the noise of the pilot shows which edits cannot be distinguished from those on the other side of the
selection's boundary, and these get more seeds (`close`).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from ..config import Settings
from ..types import Edit, Outcome
from .reliability import values_by_edit

Key = TypeVar("Key", bound=Hashable)  # of a candidate
MOST = 3  # seeds an edit gets with "auto"


def first_seeds(settings: Settings) -> int:
    """Seeds that every edit is tried with."""
    return 1 if settings.inner.seeds == "auto" else settings.inner.seeds


def edits_tried(settings: Settings, n_tasks: int) -> int:
    """Edits of so many contexts that are tried: all, or what a proxy leaves (unusable ones, which cost nothing, apart)."""
    each, reward = settings.edits.per_task, settings.reward
    return n_tasks * (each if reward.proxy == "none" else min(each, reward.proxy_keep))


def to_be_tried(edits: Sequence[Edit], values: Mapping[str, float | None], keep: int) -> list[Edit]:
    """The ``keep`` best edits of each context by ``values`` (by edit; the first of equals), in their order.

    An edit without a value is tried in any case: the proxy failed, or the edit is unusable and was not ranked.
    """
    ranked: dict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        if values.get(edit.id) is not None:
            ranked[edit.task_id].append(edit)
    best = {edit.id for group in ranked.values() for edit in sorted(group, key=lambda edit: -(values[edit.id] or 0.0))[:keep]}
    return [edit for edit in edits if edit.id in best or values.get(edit.id) is None]


def most_trials(settings: Settings, n_edits: int) -> int:
    """Inner loops that the edits of a round take at most (exactly, but for unusable edits, where seeds are not "auto")."""
    if settings.inner.seeds == "auto":
        return MOST * n_edits
    pilot = min(settings.reward.pilot, n_edits) if settings.inner.seeds == 1 else 0
    return settings.inner.seeds * n_edits + pilot


def pilot_edits(edits: Sequence[Edit], outcomes: Sequence[Outcome], settings: Settings) -> list[Edit]:
    """The first usable edits of a round, to be tried with a second seed: every task's first one, then every task's second.

    Going from task to task shows the noise on several of them. No edits where all have several seeds anyway.
    """
    if first_seeds(settings) > 1:
        return []
    usable = {outcome.edit_id for outcome in outcomes if outcome.status == "ok"}
    return sorted((edit for edit in edits if edit.id in usable), key=lambda edit: edit.index)[: settings.reward.pilot]


def close_edits(
    edits: Sequence[Edit], pilot: Sequence[Edit], outcomes: Sequence[Outcome], settings: Settings, n_seeds: int
) -> list[Edit]:
    """Edits that were tried with ``n_seeds`` seeds and whose selection is open, by what the algorithm ranks by first.

    A seed's noise is measured on the ``pilot`` alone: the others' second seeds went to edits that were chosen by the first.
    """
    by_edit = values_by_edit(outcomes, settings.algorithm.rank_by[0])
    by_id = {edit.id: edit for edit in edits if edit.id in by_edit}
    groups: dict[str, list[str]] = defaultdict(list)
    for edit in by_id.values():
        groups[edit.task_id].append(edit.id)
    noise = seed_noise([by_edit[edit.id] for edit in pilot])
    # The edits of a context that the algorithm learns from as its best; 2 where it does not choose.
    keep = int(getattr(settings.algorithm.table(settings.algorithm.name), "keep", 2))
    tried = Counter(outcome.edit_id for outcome in outcomes)
    found = [i for group in groups.values() for i in close(group, by_edit, noise, settings.reward.margin, keep)]
    return [by_id[i] for i in found if tried[i] == n_seeds]


def close(group: Sequence[Key], values: Mapping[Key, Sequence[float]], noise: float, margin: float, keep: int = 1) -> list[Key]:
    """The members of a group that may or may not belong to its ``keep`` best, in the group's order; empty where that is clear.

    One of the best and one of the others are close while their means (of ``values``, one per seed) differ by at most ``margin``
    standard errors; ``noise`` is a single seed's standard deviation.
    """
    means = {c: fmean(values[c]) for c in group}
    kept = sorted(group, key=lambda c: -means[c])[:keep]  # of equals the first
    others = [c for c in group if c not in kept and math.isfinite(means[c])]

    def unsure(better: Key, worse: Key) -> bool:
        error = noise * math.sqrt(1 / len(values[better]) + 1 / len(values[worse]))
        return means[better] - means[worse] <= margin * error

    in_question = {c for pair in itertools.product(kept, others) if unsure(*pair) for c in pair}
    return [c for c in group if c in in_question]


def seed_noise(pairs: Sequence[Sequence[float]]) -> float:
    """The standard deviation of one value around its candidate's mean, pooled; infinite where there is nothing to pool."""
    finite = [v for v in pairs if len(v) > 1 and all(map(math.isfinite, v))]
    if not finite:
        return math.inf
    spread = sum(sum((x - fmean(v)) ** 2 for x in v) for v in finite)
    return math.sqrt(spread / sum(len(v) - 1 for v in finite))
