"""The reward `perplexity`."""

from __future__ import annotations

from pathlib import Path

from ...config import RewardSettings
from ...engine.base import Engine
from ...errors import SettingsError
from .base import Answered, Valued


def read_validation_text(name: str) -> str:
    """The text of ``reward.validation_text``.

    Raises:
        SettingsError: it can't be read, or is empty.
    """
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"reward.validation_text: {name} can't be read ({error}); give a UTF-8 text file") from None
    if not text.strip():
        raise SettingsError(f"reward.validation_text: {name} is empty; give a text of some paragraphs")
    return text


class Perplexity:
    """Minus the log-perplexity of a validation text (reward.validation_text)."""

    def __init__(self, settings: RewardSettings, engine: Engine) -> None:
        """Raises SettingsError where the text can't be read, or is too short."""
        self.engine = engine
        self.ids = engine.encode_prompt(read_validation_text(settings.validation_text))[: engine.window]
        if len(self.ids) < 2:
            raise SettingsError(f"reward.validation_text: {settings.validation_text} has fewer than two tokens")

    def value(self, answered: Answered) -> Valued:
        """See `base.Term`: the mean log-likelihood of the text's tokens (nats)."""
        bank, member = answered.bank, answered.member
        pair = (self.ids[:1], self.ids[1:])
        rows = [[pair] if k == member else [] for k in range(len(bank) if bank else 1)]
        scored = self.engine.score(rows, on=answered.on, members=bank)[member][0]
        return sum(scored.logprobs) / len(scored.logprobs), ""
