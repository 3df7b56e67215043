"""ReST-EM: clone the best self-edits (arXiv 2506.10943, section 3.1; Singh et al. 2312.06585).

The E-step is the round's outcomes; the M-step is supervised fine-tuning of the policy on the prompts and completions of the
edits that helped most. The paper keeps the argmax of k without asking for a gain (16-20 % of its winners had none);
``positive_only`` does, and ``rank_by`` may order by the gold answers' log-likelihood, at first or among ties.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..config import AlgorithmSettings, sub_seed
from ..engine.base import Adapter, Engine
from ..errors import UpdateError
from ..types import Edit, Outcome, TrainSequence, Update


@dataclass(frozen=True)
class Judged:
    """An edit with the means of its outcomes over seeds; None where none of them is ok."""

    edit: Edit
    reward: float | None
    gain: float | None
    logprob: float | None


def judge(edits: Sequence[Edit], outcomes: Sequence[Outcome]) -> list[Judged]:
    """Each edit's means over its seeds; failed seeds do not count, neither as zero nor at all."""
    by_edit: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status == "ok":
            by_edit[outcome.edit_id].append(outcome)
    return [Judged(edit, *(_mean(by_edit[edit.id], of) for of in ("reward", "gain", "logprob"))) for edit in edits]


def _mean(outcomes: Sequence[Outcome], name: str) -> float | None:
    # To 12 decimals: the rounding of a sum must neither break a tie between equals nor pass for a gain.
    return round(fmean(getattr(o, name) or 0.0 for o in outcomes), 12) if outcomes else None


def select(judged: Sequence[Judged], settings: AlgorithmSettings) -> list[Judged]:
    """The best ``keep`` edits of every task, in the order of the tasks; of equals the first."""
    by_task: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        if item.gain is not None and (item.gain > 0 or not settings.positive_only):
            by_task[item.edit.task_id].append(item)
    kept: list[Judged] = []
    for items in by_task.values():
        items.sort(
            key=lambda j: (*(getattr(j, name) or 0.0 for name in settings.rank_by), -j.edit.index),
            reverse=True,
        )
        kept += items[: settings.keep]
    return kept


def improve(
    engine: Engine, policy: Adapter | None, winners: Sequence[Judged], settings: AlgorithmSettings, seed: int
) -> Adapter | None:
    """The M-step: the policy, trained further on the winners' completions. Without winners the policy stays as it is.

    Raises UpdateError if the training diverges.
    """
    if not winners:
        return policy
    sequences = tuple(_cloning_sequence(winner.edit) for winner in winners)
    update = Update(
        sequences=sequences,
        steps=settings.epochs * math.ceil(len(sequences) / settings.batch_size),
        batch_size=settings.batch_size,
        lr=settings.lr,
        rank=settings.rank,
        alpha=settings.alpha,
        seed=sub_seed(seed, "m-step"),
    )
    engine.mount(None)
    bank = engine.fit([update], init=policy, targets=settings.targets)
    if bank.failed:
        raise UpdateError(f"the policy's training diverged ({bank.failed[0]}); lower algorithm.lr")
    return bank.adapter(0)


def _cloning_sequence(edit: Edit) -> TrainSequence:
    """Prompt and completion; only the completion counts."""
    prompt, completion = edit.completion.prompt_ids, edit.completion.token_ids
    return TrainSequence(prompt + completion, (False,) * len(prompt) + (True,) * len(completion))
