"""The reward `tokens`."""

from __future__ import annotations

from ...config import RewardSettings
from ...engine.base import Engine
from .base import Answered, Valued


class Tokens:
    """How many tokens the inner loop trained on: a cost, with a negative weight."""

    def __init__(self, settings: RewardSettings, engine: Engine) -> None:
        pass

    def value(self, answered: Answered) -> Valued:
        """See `base.Term`; 0 without an edit."""
        bank = answered.bank
        return (float(bank.trained_tokens[answered.member]) if bank is not None else 0.0), ""
