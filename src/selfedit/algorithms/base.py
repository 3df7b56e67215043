"""What every algorithm is given, and what it gives back: a round's judged edits, a better policy and the algorithm's state."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pvariance
from typing import TYPE_CHECKING, Protocol

from ..engine.base import Adapter
from ..types import Edit, Outcome

if TYPE_CHECKING:
    from torch import Tensor

# What an algorithm carries from round to round beside the policy: moments, baselines, coefficients, a value head, replay.
State = dict[str, "Tensor"]


@dataclass(frozen=True)
class Judged:
    """An edit with the means of its outcomes over seeds; None where none of them is ok.

    ``gain`` in the ``reward`` and ``logprob`` of the gold answers, both over the un-edited learner; ``seeds``: how many were ok;
    ``error``: the standard error of ``gain``, from what seeds make of all edits of the round (0 where none had two);
    ``all_correct``: every probe was answered right with each seed.
    """

    edit: Edit
    reward: float | None
    gain: float | None
    logprob: float | None
    seeds: int = 1
    error: float = 0.0
    all_correct: bool = False


def judge(edits: Sequence[Edit], outcomes: Sequence[Outcome]) -> list[Judged]:
    """Each edit's means over its seeds; failed seeds do not count, neither as zero nor at all.

    An edit that was not tried, or of which no outcome is ok and one could not be graded, is left out: nobody knows what it is
    worth, and what is unusable may have a price.
    """
    by_edit: dict[str, list[Outcome]] = defaultdict(list)
    tried = {outcome.edit_id for outcome in outcomes}
    unknown = {outcome.edit_id for outcome in outcomes if outcome.status == "ungraded"}
    for outcome in outcomes:
        if outcome.status == "ok":
            by_edit[outcome.edit_id].append(outcome)
    noise = _seed_noise([[o.gain or 0.0 for o in outcomes] for outcomes in by_edit.values()])
    judged = []
    for edit in edits:
        ok = by_edit[edit.id]
        if not ok and (edit.id in unknown or edit.id not in tried):
            continue
        reward, gain, logprob = (_mean(ok, name) for name in ("reward", "gain", "logprob"))
        right = bool(ok) and all(answer.correct for o in ok for answer in o.answers)
        judged.append(Judged(edit, reward, gain, logprob, len(ok), noise / math.sqrt(max(1, len(ok))), right))
    return judged


def _mean(outcomes: Sequence[Outcome], name: str) -> float | None:
    # To 12 decimals: the rounding of a sum must neither break a tie between equals nor pass for a gain.
    return round(fmean(getattr(o, name) or 0.0 for o in outcomes), 12) if outcomes else None


def _seed_noise(values: Sequence[Sequence[float]]) -> float:
    """A seed's standard deviation around its edit's mean, pooled over edits; 0 where no edit has two seeds."""
    freedom = sum(len(row) - 1 for row in values)
    squares = sum(len(row) * pvariance(row) for row in values)
    return math.sqrt(squares / freedom) if freedom else 0.0


@dataclass(frozen=True)
class Improvement:
    """The new policy (the very same object where nothing was learned), the state to go on with, and figures for the journal.

    Of the figures, ``learned_from`` is how many edits taught the policy something.
    """

    policy: Adapter | None
    state: State
    figures: dict[str, float] = field(default_factory=dict)


class Algorithm(Protocol):
    """One step of the outer loop: from a round's edits and what they were worth to a better policy."""

    def improve(self, policy: Adapter | None, judged: Sequence[Judged], state: State, seed: int) -> Improvement:
        """Learn from one round. ``policy`` wrote the edits; ``state`` is what the last accepted round left ({} at first).

        Raises:
            UpdateError: the policy's training diverged.
        """
        ...


STATE_FILE = "state.safetensors"


def save_state(state: State, file: Path) -> None:
    """Write a state beside its policy; nothing for an empty one."""
    from safetensors.torch import save_file

    if state:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)


def load_state(file: Path) -> State:
    """The state that `save_state` wrote ({} where it wrote nothing)."""
    from safetensors.torch import load_file

    return load_file(file) if file.exists() else {}
