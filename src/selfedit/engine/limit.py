"""How many members train at once; fewer, for good, where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from ..errors import OutOfMemoryError, SettingsError

Tell = Callable[[int, str], None]


class MemberLimit:
    """The most ``members`` of a cohort, and how many cohorts may train beside each other on threads of their own."""

    def __init__(self, members: int) -> None:
        self.members = self._planned = members
        self._tell: Tell | None = None

    def set(self, members: int, tell: Tell | None) -> None:
        """From now on at most so many; ``tell(members, reason)`` hears of fewer.

        Raises:
            SettingsError: ``members`` is less than 1.
        """
        if members < 1:
            raise SettingsError(f"members_at_once is {members}; it must be at least 1")
        self.members, self._tell = members, tell

    def workers(self, updates: int) -> int:
        """Cohorts beside each other: as many as before a halving, or more of them would take what fewer members freed."""
        return max(1, -(-updates // self._planned))

    def halve(self, trained: int, reason: str) -> None:
        """Half of those that trained together when memory ran out, and the memory of what was begun given back.

        Raises:
            OutOfMemoryError: it was one.
        """
        if trained == 1:
            raise OutOfMemoryError(
                f"one member alone needs more memory than there is ({reason}); train on smaller batches or shorter sequences "
                "(inner.batch_size, algorithm.batch_size, edits.max_new_tokens), at a lower rank, or with model.dtype = 'bf16'"
            )
        self.members = min(self.members, trained // 2)
        gc.collect()  # the workers' errors and frames hold each other, and the tensors of their cohorts
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._tell is not None:
            self._tell(self.members, reason)
