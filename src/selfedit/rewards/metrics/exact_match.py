"""The metric `exact_match`."""

from __future__ import annotations

from ..string_rules import exact_match
from .base import Case, Rule


class ExactMatch(Rule):
    """SQuAD's exact match: equal without case, articles and punctuation."""

    def right(self, case: Case) -> bool:
        """See `Rule`."""
        return exact_match(case.text, case.golds)
