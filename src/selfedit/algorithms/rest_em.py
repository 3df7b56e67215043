"""ReST-EM: clone the best self-edits (arXiv 2506.10943, section 3.1; Singh et al. 2023, arXiv 2312.06585).

The E-step is the round's outcomes; the M-step is supervised fine-tuning of the policy on the prompts and completions of the
edits that helped most. The paper keeps the argmax of k without asking for a gain (16-20 % of its winners had none);
``positive_only`` does, and ``rank_by`` may order by the gold answers' log-likelihood, at first or among ties.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import AlgorithmSettings, sub_seed
from ..engine.base import Adapter, Engine
from ..types import TrainSequence
from .base import Improvement, Judged, State
from .training import Example, PolicyTraining, Schedule, Tokens, cloning_sequence, policy_bank


def select(judged: Sequence[Judged], settings: AlgorithmSettings) -> list[Judged]:
    """The best ``keep`` edits of every task, in the order of the tasks; of equals the first."""
    by_task: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        if _good_enough(item, settings):
            by_task[item.edit.task_id].append(item)
    kept: list[Judged] = []
    for items in by_task.values():
        items.sort(
            key=lambda j: (*(getattr(j, name) or 0.0 for name in settings.rank_by), -j.edit.index),
            reverse=True,
        )
        kept += items[: settings.keep]
    return kept


def _good_enough(item: Judged, settings: AlgorithmSettings) -> bool:
    if item.gain is None or (settings.all_correct and not item.all_correct):
        return False
    return not settings.positive_only or item.gain > settings.confidence * item.error


@dataclass(frozen=True)
class RestEm:
    """See the module. The optimiser starts anew in every round; the state holds earlier winners, where they are replayed."""

    engine: Engine
    settings: AlgorithmSettings

    def improve(self, policy: Adapter | None, judged: Sequence[Judged], state: State, seed: int) -> Improvement:
        """See `base.Algorithm`; without winners the policy stays as it is."""
        how = self.settings
        winners = select(judged, how)
        if not winners:
            return Improvement(policy, state, {"learned_from": 0})
        weighted = [
            (cloning_sequence(completion), weight)
            for winner, weight in zip(winners, _weights(winners, how), strict=True)
            for completion in winner.edit.completions
            if completion.text.strip() or len(winner.edit.completions) == 1
        ]
        mine = [sequence for sequence, _ in weighted]
        earlier = _unpacked(state) if how.replay else []
        weights = [weight for _, weight in weighted] + [1.0] * len(earlier)
        examples = [
            Example(sequence, {"weight": torch.full((sequence.n_targets,), weight)})
            for sequence, weight in zip([*mine, *earlier], weights, strict=True)
        ]
        schedule = Schedule(how.epochs, how.batch_size, how.batch_size, how.lr, decay=True)
        bank = policy_bank(
            self.engine, policy, rank=how.rank, alpha=how.alpha, targets=how.targets, seed=sub_seed(seed, "m-step")
        )
        training = PolicyTraining(self.engine, bank, schedule, {})
        figures = training.run(examples, _cloning, seed)
        kept = _packed([*mine, *earlier][: how.replay]) if how.replay else {}
        return Improvement(
            training.bank.adapter(0), kept, {"learned_from": len(winners), "replayed": len(earlier), **figures}
        )


def _cloning(tokens: Tokens) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of each token, times its edit's weight."""
    return -tokens["weight"] * tokens.states.logprobs(), {}


def _weights(winners: Sequence[Judged], settings: AlgorithmSettings) -> list[float]:
    """1 for each; or what each gained, 1 on average, where the settings ask for it (a loss counts nothing)."""
    name = "gain" if settings.rank_by[0] == "reward" else settings.rank_by[0]  # the reward's level is no gain
    gains = [max(0.0, getattr(winner, name) or 0.0) for winner in winners]
    mean = sum(gains) / len(gains)
    return [gain / mean for gain in gains] if settings.weighted and mean > 0 else [1.0] * len(winners)


def _packed(sequences: Sequence[TrainSequence]) -> State:
    """Cloning sequences as tensors: all ids, and the tokens (all, completion) of each."""
    ids = [token for sequence in sequences for token in sequence.ids]
    sizes = [[len(sequence.ids), sequence.n_targets] for sequence in sequences]
    return {"replay.ids": torch.tensor(ids), "replay.sizes": torch.tensor(sizes)}


def _unpacked(state: State) -> list[TrainSequence]:
    if "replay.ids" not in state:
        return []
    ids, out, at = state["replay.ids"].tolist(), [], 0
    for size, targets in state["replay.sizes"].tolist():
        out.append(TrainSequence(tuple(ids[at : at + size]), (False,) * (size - targets) + (True,) * targets))
        at += size
    return out
