"""General ability, where a task source has no closed-book questions: how likely a text is that nobody trains on."""

from __future__ import annotations

from ..engine.base import Engine
from ..rewards.terms.perplexity import read_validation_text
from ..types import Adapter, TrainSequence

_TOKENS = 512  # of one piece of the text


def text_logprob(engine: Engine, name: str, on: Adapter | None) -> float | None:
    """The text's mean log-likelihood (nats per token) under ``on``, in pieces; None where the settings name no text."""
    if not name:
        return None
    ids, size = engine.encode(read_validation_text(name)), min(_TOKENS, engine.window)
    pieces = [TrainSequence.whole(ids[i : i + size]) for i in range(0, len(ids) - 1, size)]
    losses = engine.sequence_loss(pieces, on=on)
    return -sum(loss * p.n_targets for loss, p in zip(losses, pieces, strict=True)) / sum(p.n_targets for p in pieces)
