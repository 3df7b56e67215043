"""The guard `length`."""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

from pydantic import BaseModel

from selfedit.config import GuardSettings
from selfedit.guards.base import Figures, Look, Subject


class LengthSettings(BaseModel):
    """The table ``[guards.length]``."""

    at_most: float = 1000.0


class Length:
    """The mean length of what the policy writes for development passages, in letters."""

    Settings: ClassVar = LengthSettings

    def __init__(self, settings: GuardSettings) -> None:
        self.at_most = settings.own("length", LengthSettings).at_most

    def measure(self, subject: Subject) -> Figures:
        return {"letters": fmean(len(edit.text) for edit in subject.edits)}

    def objections(self, look: Look, base: Look, best: Look) -> list[str]:
        letters = look.figures["length"]["letters"]
        return [f"edits are {letters:.0f} letters long, over {self.at_most:g}"] if letters > self.at_most else []
