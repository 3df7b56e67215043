"""The metric `token_f1`."""

from __future__ import annotations

from ..string_rules import token_f1
from .base import Case
from .exact_match import ExactMatch


class TokenF1(ExactMatch):
    """SQuAD's token F1 as partial credit; an answer is called right by exact match."""

    def credit(self, case: Case) -> float:
        """See `base.Metric`."""
        return token_f1(case.text, case.golds)
