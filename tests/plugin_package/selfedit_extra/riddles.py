"""The task source `riddles`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from selfedit.config import TaskSettings
from selfedit.types import Probe, Task


class RiddlesSettings(BaseModel):
    """The table ``[tasks.riddles]``."""

    subject: str = "box"


class Riddles:
    """Passages about numbered things, one after another."""

    Settings: ClassVar = RiddlesSettings

    def __init__(self, settings: TaskSettings, seed: int) -> None:
        self.settings, self.subject = settings, settings.own("riddles", RiddlesSettings).subject

    def draw(self, round: int) -> list[Task]:
        return [self._task(1000 * round + i) for i in range(self.settings.per_round)]

    def dev(self) -> list[Task]:
        return [self._task(i) for i in range(self.settings.dev)]

    def evaluation(self) -> list[Task]:
        return [self._task(500 + i) for i in range(self.settings.evaluation)]

    def known(self, n: int) -> list[Probe]:
        return []

    def _task(self, number: int) -> Task:
        about = f"{self.subject} {number}"
        text = f"The {about} is old. In the {about} is a stone. Nobody has the {about}."
        return Task(f"riddle-{number}", about, (text,), (Probe(f"What is in the {about}?", "a stone", "riddle"),))
