"""The metric `offline`."""

from __future__ import annotations

from ..offline_grader import load_grader
from .base import Case, Rule


class Offline(Rule):
    """The offline grader: free answers, without a paid judge (docs/grader.md)."""

    def right(self, case: Case) -> bool:
        """See `Rule`."""
        return load_grader().grade(case.question, case.golds, case.text).right
