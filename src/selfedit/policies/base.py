"""What a policy is: what writes self-edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..types import Edit, Task


class Policy(Protocol):
    """What writes self-edits, made from the engine that writes, its adapter and the run's settings:
    ``Kind(engine, adapter, settings)``. Its own settings, if it has any, are the pydantic model ``Settings``.
    """

    @property
    def hash(self) -> str:
        """What wrote an edit: whether an edit is on-policy is decided by it."""
        ...

    def propose(self, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        """``k`` self-edits per task, in the order of the tasks; an edit depends on its task, its number and the policy alone.

        ``form``: write text edits, with this prompt in place of what the settings say.
        """
        ...
