"""What a task's answers are worth: the weighted sum of the terms that the settings name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..config import Settings
from ..config.rewards import Term
from ..engine.base import AdapterBank, Engine
from ..errors import SettingsError
from ..types import Answer, Task
from .custom import call_custom, load_custom
from .graders import token_f1
from .grading import RULES, Case


class Reward:
    """The reward of a task's graded answers (every one of them was graded)."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        """Load what the terms need.

        Raises:
            SettingsError: the user's function or the validation text can't be had.
        """
        self.engine, self.metric, self.terms = engine, settings.reward.metric, settings.reward.terms
        self._custom = load_custom(settings.reward.custom) if "custom" in self.terms else None
        self._validation = self._read(settings.reward.validation_text) if "perplexity" in self.terms else []

    def _read(self, name: str) -> list[int]:
        try:
            ids = self.engine.encode_prompt(Path(name).read_text(encoding="utf-8"))[: self.engine.window]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"reward.validation_text: {name} can't be read ({error}); give a UTF-8 text file"
            ) from None
        if len(ids) < 2:
            raise SettingsError(f"reward.validation_text: {name} has fewer than two tokens")
        return ids

    def __call__(
        self, task: Task, answers: Sequence[Answer], bank: AdapterBank | None, member: int
    ) -> tuple[float | None, str]:
        """The reward and "", or None and why there is none. ``bank`` and ``member``: whose answers they are."""
        total = 0.0
        for term, weight in self.terms.items():
            value, problem = self._value(term, task, answers, bank, member)
            if value is None:
                return None, problem
            total += weight * value
        return total, ""

    def _value(
        self, term: Term, task: Task, answers: Sequence[Answer], bank: AdapterBank | None, member: int
    ) -> tuple[float | None, str]:
        if term == "custom" and self._custom is not None:
            return call_custom(self._custom, task, answers)
        if term == "logprob":
            return sum(a.logprob for a in answers) / len(answers), ""
        if term == "tokens":
            return (float(bank.trained_tokens[member]) if bank is not None else 0.0), ""
        if term == "perplexity":
            return self._likelihood(bank, member), ""
        try:
            return self.share_right(term, task, answers), ""
        except ValueError as error:  # a gold that the rule can't compare with
            return None, str(error)

    def share_right(self, term: Term, task: Task, answers: Sequence[Answer]) -> float:
        """The mean over probes (0..1) by a grader of texts; by `metric`'s own verdicts where ``term`` is not one."""
        if term == "token_f1":
            golds = [probe.golds for probe in task.probes]
            return fmean(token_f1(a.text, g) for a, g in zip(answers, golds, strict=True))
        rule = RULES.get(term)
        if rule is None or term == self.metric:
            return sum(a.correct for a in answers) / len(answers)
        cases = (Case(p.question, p.golds, a.text) for p, a in zip(task.probes, answers, strict=True))
        return fmean(rule(case) for case in cases)

    def _likelihood(self, bank: AdapterBank | None, member: int) -> float:
        """Mean log-likelihood of the validation text's tokens (nats)."""
        pair = (self._validation[:1], self._validation[1:])
        rows = [[pair] if k == member else [] for k in range(len(bank) if bank else 1)]
        scored = self.engine.score(bank, rows)[member][0]
        return sum(scored.logprobs) / len(scored.logprobs)
