"""The metric `first_word`."""

from __future__ import annotations

from selfedit.rewards.metrics.base import Case, Rule


class FirstWord(Rule):
    """The first word of the answer is that of a gold answer."""

    def right(self, case: Case) -> bool:
        return case.text.split()[:1] in [gold.split()[:1] for gold in case.golds]
