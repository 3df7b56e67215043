"""How many seeds an edit is tried with: as many as asked, a second one for a pilot, or more where the choice is close.

One seed for each edit says nothing about noise, so a few edits get a second one (the pilot), in every round. With
``inner.seeds = "auto"`` the noise seen there says which edits can't be told from those on the other side of the selection's
boundary, and these get more: the rule of a race (`race.close`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ..config import Settings
from ..types import Edit, Outcome
from .race import close, seed_noise
from .reliability import values_by_edit

MOST = 3  # seeds an edit gets with "auto"


def first_seeds(settings: Settings) -> int:
    """Seeds that every edit is tried with."""
    return 1 if settings.inner.seeds == "auto" else settings.inner.seeds


def edits_tried(settings: Settings, n_tasks: int) -> int:
    """Edits of so many contexts that are tried: all, or what a proxy leaves (unusable ones, which cost nothing, apart)."""
    each, reward = settings.edits.per_task, settings.reward
    return n_tasks * (each if reward.proxy == "none" else min(each, reward.proxy_keep))


def most_trials(settings: Settings, n_edits: int) -> int:
    """Inner loops that the edits of a round take at most (exactly, but for unusable edits, where seeds are not "auto")."""
    if settings.inner.seeds == "auto":
        return MOST * n_edits
    pilot = min(settings.reward.pilot, n_edits) if settings.inner.seeds == 1 else 0
    return settings.inner.seeds * n_edits + pilot


def pilot_edits(edits: Sequence[Edit], outcomes: Sequence[Outcome], settings: Settings) -> list[Edit]:
    """The first usable edits of a round, to be tried with a second seed: every task's first one, then every task's second.

    Going from task to task shows the noise on several of them. Nobody where all edits have several seeds anyway.
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
    values = {i: by_edit[edit.id] for i, edit in enumerate(edits) if edit.id in by_edit}
    groups: dict[str, list[int]] = defaultdict(list)
    for i in values:
        groups[edits[i].task_id].append(i)
    noise = seed_noise([by_edit[edit.id] for edit in pilot])
    margin, keep = settings.reward.margin, settings.algorithm.keep
    tried = Counter(outcome.edit_id for outcome in outcomes)
    found = [edits[i] for group in groups.values() for i in close(group, values, noise, margin, keep)]
    return [edit for edit in found if tried[edit.id] == n_seeds]
