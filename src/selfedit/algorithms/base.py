"""What every algorithm is given, and what it gives back: a round's rated edits, a better policy and the algorithm's state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from ..config import sub_seed
from ..disk import os_errors_from_safetensors
from ..engine.base import LocalEngine
from ..run import Run, replace_directory
from ..types import Adapter, Edit, Outcome

if TYPE_CHECKING:
    from torch import Tensor

# What an algorithm carries from round to round, beside the policy: moments, coefficients, a value head.
State = dict[str, "Tensor"]


@dataclass(frozen=True)
class RatedEdit:
    """An edit with the means of its outcomes over seeds; None where none of them is ok.

    ``gain`` in the ``reward``, and in ``logprob`` and ``probability`` of the gold answers, all over the un-edited learner.
    """

    edit: Edit
    reward: float | None
    gain: float | None
    logprob: float | None
    probability: float | None = None


def rate(edits: Sequence[Edit], outcomes: Sequence[Outcome]) -> list[RatedEdit]:
    """Each edit's means over its seeds; failed seeds do not count, neither as zero nor at all.

    An edit that was not tried, or of which no outcome is ok and one could not be graded, is left out: what it is worth is not
    known, while an unusable edit may have a price.
    """
    by_edit: dict[str, list[Outcome]] = defaultdict(list)
    tried = {outcome.edit_id for outcome in outcomes}
    unknown = {outcome.edit_id for outcome in outcomes if outcome.status == "ungraded"}
    for outcome in outcomes:
        if outcome.status == "ok":
            by_edit[outcome.edit_id].append(outcome)
    rated = []
    for edit in edits:
        ok = by_edit[edit.id]
        if not ok and (edit.id in unknown or edit.id not in tried):
            continue
        rated.append(RatedEdit(edit, *(_mean(ok, name) for name in ("reward", "gain", "logprob", "probability"))))
    return rated


def _mean(outcomes: Sequence[Outcome], name: str) -> float | None:
    # To 12 decimals: the rounding of a sum must neither break a tie between equals nor pass for a gain.
    return round(fmean(getattr(o, name) or 0.0 for o in outcomes), 12) if outcomes else None


@dataclass(frozen=True)
class Improvement:
    """The new policy (the very same object where nothing was learned), the state to go on with, and figures for the journal.

    Of the figures, ``learned_from`` is how many edits taught the policy something.
    """

    policy: Adapter | None
    state: State
    figures: dict[str, float] = field(default_factory=dict)


class Algorithm(Protocol):
    """One step of the outer loop: from a round's edits and what they were worth to a better policy.

    It is made from the engine that writes and the section ``[algorithm]``: ``Kind(engine, settings)``. Its own settings, if it
    has any, are the pydantic model ``Settings``; ``defaults`` are common settings of the section that it starts from.
    """

    def improve(self, policy: Adapter | None, rated: Sequence[RatedEdit], state: State, seed: int) -> Improvement:
        """Learn from one round. ``policy`` wrote the edits; ``state`` is what the last accepted round left ({} at first).

        Raises:
            UpdateError: the policy's training diverged.
        """
        ...


STATE_FILE = "state.safetensors"


def improve_once(
    run: Run,
    engine: LocalEngine,
    algorithm: Algorithm,
    round: int,
    policy: Adapter | None,
    rated: Sequence[RatedEdit],
    state: State,
) -> Improvement:
    """A round's step of the algorithm, checkpointed: the same call after a crash loads what was trained."""
    directory = run.directory / "policy" / f"candidate-{round}"

    def train() -> dict[str, Any]:
        made = algorithm.improve(policy, rated, state, sub_seed(run.settings.seed, "round", round))
        if made.policy is policy:
            return {"policy": None, "figures": made.figures}
        replace_directory(directory, lambda fresh: _save(made, fresh))
        return {"policy": made.policy and made.policy.sha256, "figures": made.figures}

    done = run.once(f"round-{round}/improve", train)
    if done["policy"] is None:
        return Improvement(policy, state, done["figures"])
    return Improvement(engine.load_adapter(directory), _load_state(directory), done["figures"])


def _save(made: Improvement, directory: Path) -> None:
    """The policy's adapter and, in the same directory, the algorithm's state, if it has any."""
    from safetensors.torch import save_file

    if made.policy is not None:
        made.policy.save(directory)
    if made.state:
        with os_errors_from_safetensors(directory / STATE_FILE):
            save_file({name: tensor.contiguous() for name, tensor in made.state.items()}, directory / STATE_FILE)


def _load_state(directory: Path) -> State:
    from safetensors.torch import load_file

    return load_file(directory / STATE_FILE) if (directory / STATE_FILE).exists() else {}
