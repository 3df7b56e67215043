"""The metric `exact`."""

from __future__ import annotations

from .base import Case, Rule


class Exact(Rule):
    """Right where the greedy text equals a gold answer, character by character."""

    def right(self, case: Case) -> bool:
        """See `Rule`."""
        return case.text in case.golds
