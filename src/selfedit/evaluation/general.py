"""General ability, where a task source has no closed-book questions: how likely a text is that nobody trains on."""

from __future__ import annotations

from pathlib import Path

from ..engine.base import Engine
from ..errors import SettingsError
from ..types import Adapter, TrainSequence

_TOKENS = 512  # of one piece of the text


def read_general_text(name: str) -> str:
    """The text of ``protocol.general_text``.

    Raises:
        SettingsError: it can't be read, or is empty.
    """
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"protocol.general_text: {name} can't be read ({error}); give a UTF-8 text file") from None
    if not text.strip():
        raise SettingsError(f"protocol.general_text: {name} is empty; give a text of some paragraphs")
    return text


def text_logprob(engine: Engine, name: str, on: Adapter | None) -> float | None:
    """The text's mean log-likelihood (nats per token) under ``on``, in pieces; None where the settings name no text."""
    if not name:
        return None
    ids, size = engine.encode(read_general_text(name)), min(_TOKENS, engine.window)
    pieces = [TrainSequence.whole(ids[i : i + size]) for i in range(0, len(ids) - 1, size)]
    losses = engine.sequence_loss(pieces, on=on)
    return -sum(loss * p.n_targets for loss, p in zip(losses, pieces, strict=True)) / sum(p.n_targets for p in pieces)
