"""ReST-EM: clone the best self-edits (arXiv 2506.10943, section 3.1; Singh et al. 2023, arXiv 2312.06585).

The E-step is the round's outcomes; the M-step is supervised fine-tuning of the policy on the prompts and completions of the
edits that helped most. The paper keeps the argmax of k without asking for a gain (16-20 % of its winners had none);
``positive_only`` does, and ``rank_by`` may order by the gold answers' log-likelihood, at first or among ties.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from ..config import AlgorithmSettings, Section, sub_seed
from ..engine.base import LocalEngine
from ..types import Adapter
from .base import Improvement, RatedEdit, State
from .common.training import Example, PolicyTraining, Schedule, Tokens, cloning_sequence, policy_bank


class RestEmSettings(Section):
    """ReST-EM: the table ``[algorithm.rest_em]``."""

    keep: int = Field(2, ge=1, description="best edits per task that are cloned")
    positive_only: bool = Field(True, description="keep an edit only if its gain over no edit is positive")


def select(rated: Sequence[RatedEdit], settings: AlgorithmSettings) -> list[RatedEdit]:
    """The best ``keep`` edits of every task, in the order of the tasks; of equals the first."""
    how = settings.own("rest_em", RestEmSettings)
    by_task: dict[str, list[RatedEdit]] = defaultdict(list)
    for item in rated:
        if item.gain is not None and (item.gain > 0 or not how.positive_only):
            by_task[item.edit.task_id].append(item)
    kept: list[RatedEdit] = []
    for items in by_task.values():
        items.sort(
            key=lambda j: (*(getattr(j, name) or 0.0 for name in settings.rank_by), -j.edit.index),
            reverse=True,
        )
        kept += items[: how.keep]
    return kept


@dataclass(frozen=True)
class RestEm:
    """ReST-EM: the policy is fine-tuned on the edits that helped most (SEAL, section 3.1; arXiv 2312.06585).

    The optimiser starts anew in every round.
    """

    Settings: ClassVar = RestEmSettings
    defaults: ClassVar[dict[str, Any]] = {"epochs": 4}

    engine: LocalEngine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, rated: Sequence[RatedEdit], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`; without winners the policy stays as it is."""
        how = self.settings
        winners = select(rated, how)
        if not winners:
            return Improvement(policy, state, {"learned_from": 0})
        examples = [
            Example(cloning_sequence(completion))
            for winner in winners
            for completion in winner.edit.completions
            if completion.text.strip() or len(winner.edit.completions) == 1
        ]
        schedule = Schedule(how.epochs, how.batch_size, how.batch_size, how.lr, decay=True)
        bank = policy_bank(self.engine, policy, how, sub_seed(seed, "m-step"))
        training = PolicyTraining(self.engine, bank, schedule, {})
        figures = training.run(examples, _cloning, seed)
        return Improvement(training.bank.adapter(0), {}, {"learned_from": len(winners), **figures})


def _cloning(tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of each token."""
    return -tokens.states.logprobs(), {}
