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
    """``update`` with other sequences in its batches: for each time that one of its own comes, as many as the number says.

    The update's own sequences come as often as without the others, and the steps grow with the mixture. The others are drawn
    without replacement as long as there are any left. Nothing changes where there are none, or none of its own: there is no edit.
    """
    present = [(sequences, share) for sequences, share in others if sequences and share]
    if not present or not update.sequences:
        return update
    visits = _visits(len(update.sequences), update.steps, update.batch_size)
    own = islice(cycle(update.sequences), visits)
    drawn = [_drawn(sequences, round(visits * share), rng) for sequences, share in present]
    sequences = tuple(chain(own, *drawn))
    return replace(update, sequences=sequences, steps=math.ceil(len(sequences) / update.batch_size))


def _visits(n: int, steps: int, batch_size: int) -> int:
    """How many sequences so many steps see: the last batch of an epoch over ``n`` takes what is left."""
    epochs, rest = divmod(steps, -(-n // batch_size))
    return epochs * n + min(n, rest * batch_size)


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
        self.anchors, self.before = anchors, before
        self.own = [sequence.unpadded for sequence in edit[1].sequences]
        self.texts = [sequence.unpadded for _, parsed in earlier for sequence in parsed.sequences]
        pairs = [(task, filter(None, map(question_and_answer, parsed.lines))) for task, parsed in earlier]
        asked = [
            replace(task, probes=tuple(Probe(q, a) for q, a in dict(found).items() if self._short(a)))
            for task, found in pairs
        ]
        self.asked = [task for task in asked if task.probes]

    def _short(self, answer: str) -> bool:
        """A model wrote it: it may be too long to be asked for."""
        return len(self.engine.encode(answer)) <= self.rewarder.reward.max_answer_tokens

    def __call__(self, adapter: Adapter, scale: float, merged: Adapter | None) -> Cost:
        """The cost of merging ``adapter`` at ``scale``; ``merged`` is what is mounted then."""
        own_before, texts_before, right_before = self._before
        self.engine.mount(merged)
        own, texts, right = self._measured()
        kl = self.engine.token_kl(self.anchors) if self.anchors else 0.0
        graded = [(was, now) for was, now in zip(right_before, right, strict=True) if None not in (was, now)]
        lost = sum(bool(was and not now) for was, now in graded)
        return Cost(
            norm_ratio=scale * self.engine.norm_ratio(adapter),
            kl=kl,
            drop=lost / len(graded) if graded else None,
            bits=(fmean(texts) - fmean(texts_before)) / math.log(2) if texts else None,
            gains=tuple(was - now for was, now in zip(own_before, own, strict=True)),
        )

    @cached_property
    def _before(self) -> tuple[list[float], list[float], list[bool | None]]:
        self.engine.mount(self.before)
        return self._measured()

    def _measured(self) -> tuple[list[float], list[float], list[bool | None]]:
        """Losses of the edit's own sequences and of the earlier ones', and which earlier questions are answered right.

        None: an answer that could not be graded.
        """
        losses, n = self.engine.sequence_loss([*self.own, *self.texts]), len(self.own)
        rows = self.rewarder.answers(None, self.asked) if self.asked else []
        right = [None if answer.problem else answer.correct for row in rows for answer in row]
        return losses[:n], losses[n:], right
