"""The reward `brevity`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from selfedit.config import RewardSettings
from selfedit.engine.base import Engine
from selfedit.rewards.terms.base import Answered, Valued


class BrevitySettings(BaseModel):
    """The table ``[reward.brevity]``."""

    per_letter: float = 0.01


class Brevity:
    """What short answers are worth: 1 less a price per letter, averaged over the probes."""

    Settings: ClassVar = BrevitySettings

    def __init__(self, settings: RewardSettings, engine: Engine) -> None:
        self.price = settings.own("brevity", BrevitySettings).per_letter

    def value(self, answered: Answered) -> Valued:
        letters = sum(len(answer.text) for answer in answered.answers) / len(answered.answers)
        return 1.0 - self.price * letters, ""
