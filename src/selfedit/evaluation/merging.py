"""What a merge costs, and what is trained on beside a new edit so that it costs less."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, cycle, islice
from statistics import fmean

from ..edits.pairs import question_and_answer
from ..edits.text import ParsedEdit
from ..engine.base import Adapter
from ..guards.gate import Cost
from ..types import Probe, Task, TrainSequence, Update
from ..work import Work


def mixed(update: Update, others: Sequence[tuple[Sequence[TrainSequence], float]], rng: random.Random) -> Update:
    """``update`` with other sequences in its batches: for each of its own as many of each kind as its number says.

    The update's own sequences come as often as without the others; the steps grow with the mixture. The others are drawn
    without replacement as long as there are any left. Nothing changes where there are none.
    """
    present = [(sequences, share) for sequences, share in others if sequences and share]
    if not present:
        return update
    slots = update.steps * update.batch_size
    own = islice(cycle(update.sequences), slots)
    drawn = [_drawn(sequences, round(slots * share), rng) for sequences, share in present]
    sequences = tuple(chain(own, *drawn))
    return replace(update, sequences=sequences, steps=math.ceil(len(sequences) / update.batch_size))


def _drawn(sequences: Sequence[TrainSequence], n: int, rng: random.Random) -> list[TrainSequence]:
    rounds = [rng.sample(sequences, len(sequences)) for _ in range(math.ceil(n / len(sequences)))]
    return list(chain(*rounds))[:n]


class MergeCost:
    """What one edit's merge costs at a scale. ``before`` is what was mounted until then; ``earlier`` edits may be none."""

    def __init__(
        self,
        work: Work,
        anchors: Sequence[TrainSequence],
        edit: tuple[Task, ParsedEdit],
        earlier: Sequence[tuple[Task, ParsedEdit]],
        before: Adapter | None,
    ) -> None:
        self.engine, self.rewarder = work.rewarder.engine, work.rewarder
        self.anchors, self.edit, self.before = anchors, edit, before
        self.texts = [sequence for _, parsed in earlier for sequence in parsed.sequences]
        pairs = [(task, filter(None, map(question_and_answer, parsed.lines))) for task, parsed in earlier]
        asked = [replace(task, probes=tuple(Probe(*pair) for pair in dict(found).items())) for task, found in pairs]
        self.asked = [task for task in asked if task.probes]

    def __call__(self, adapter: Adapter, scale: float, merged: Adapter | None) -> Cost:
        """The cost of merging ``adapter`` at ``scale``; ``merged`` is what is mounted then."""
        own_before, texts_before, right_before = self._before
        self.engine.mount(merged)
        own, texts, right = self._measured()
        kl = self.engine.token_kl(self.anchors) if self.anchors else 0.0
        lost = sum(was and not now for was, now in zip(right_before, right, strict=True))
        return Cost(
            norm_ratio=scale * self.engine.norm_ratio(adapter),
            kl=kl,
            drop=lost / len(right) if right else None,
            bits=(fmean(texts) - fmean(texts_before)) / math.log(2) if texts else None,
            gains=tuple(was - now for was, now in zip(own_before, own, strict=True)),
        )

    @cached_property
    def _before(self) -> tuple[list[float], list[float], list[bool]]:
        self.engine.mount(self.before)
        return self._measured()

    def _measured(self) -> tuple[list[float], list[float], list[bool]]:
        """Losses of the edit's own sequences and of the earlier ones', and which earlier questions are answered right."""
        losses = self.engine.sequence_loss([*self.edit[1].sequences, *self.texts])
        n = len(self.edit[1].sequences)
        right = (
            [answer.correct for row in self.rewarder.answers(None, self.asked) for answer in row] if self.asked else []
        )
        return losses[:n], losses[n:], right
