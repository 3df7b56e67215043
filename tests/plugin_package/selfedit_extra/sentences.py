"""The kind of self-edits `sentences`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from selfedit.config import Settings
from selfedit.edits.base import Tokens
from selfedit.edits.text import text_change
from selfedit.types import Change, Edit, Recipe, Task


class SentencesSettings(BaseModel):
    """The table ``[edits.sentences]``."""

    steps: int = 3


class Sentences:
    """Sentences to train on, each repeated once, for a number of steps of this kind's own."""

    Settings: ClassVar = SentencesSettings
    policy = "quoter"

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self.settings, self.tokens = settings, tokens

    def change(self, edit: Edit, task: Task) -> Change:
        lines = [line for line in edit.text.splitlines() for _ in range(2)]
        recipe, _ = self.largest(self.settings)
        return text_change(self.settings, self.tokens, task, ["\n".join(lines)], recipe=recipe)

    @staticmethod
    def largest(settings: Settings) -> tuple[Recipe, int]:
        own = settings.edits.own("sentences", SentencesSettings)
        recipe = settings.inner.recipe
        return Recipe(own.steps, 0, recipe.batch_size, recipe.lr, recipe.rank, recipe.alpha, recipe.schedule), 1
