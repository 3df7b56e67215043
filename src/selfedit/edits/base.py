"""What a kind of self-edit is: the change that it makes to a model's weights."""

from __future__ import annotations

from typing import Protocol

from ..config import Settings
from ..types import Change, Edit, Recipe, Task


class Tokens(Protocol):
    """What a kind has to know of the model that learns: how it reads text."""

    @property
    def window(self) -> int:
        """Longest sequence in tokens."""
        ...

    @property
    def eos_id(self) -> int:
        """The token that ends a text."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a document."""
        ...


class EditKind(Protocol):
    """A kind of self-edit, made from the run's settings and the tokens of the model that learns: ``Kind(settings, tokens)``.

    ``policy`` names the plug-in that writes edits of this kind. Its settings, if it has any, are the pydantic model ``Settings``.
    """

    policy: str

    def change(self, edit: Edit, task: Task) -> Change:
        """What the edit does to weights, clamped to the run's limits. Never raises because of what a model wrote."""
        ...

    @staticmethod
    def largest(settings: Settings) -> tuple[Recipe, int]:
        """What memory and time are planned with: the largest recipe of a change of this kind, and the most texts of an edit."""
        ...
