"""What is trained on beside a new edit, so that a model forgets less of the earlier ones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, cycle, islice

from ..types import TrainSequence, Update


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
