"""What a task's answers are worth: the weighted sum of the terms that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from ..config import Settings
from ..engine.base import Engine
from ..plugins import find
from .metrics.base import Case, make_metric
from .terms.base import Answered, Term, Valued


class Reward:
    """The reward of a task's graded answers (every one of them was graded)."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        """Load what the terms need.

        Raises:
            SettingsError: the user's function or the validation text can't be loaded.
        """
        reward = settings.reward
        self.metric, self.weights = reward.metric, reward.terms
        grading = [name for name in dict.fromkeys((self.metric, *self.weights)) if reward.group_of(name) == "metrics"]
        self._terms: dict[str, Term] = {
            name: find("rewards", name)(reward, engine) for name in self.weights if name not in grading
        }
        # The metric's own verdicts are there already: a judge is not asked again.
        self._metrics = {name: make_metric(name, reward) for name in grading if name != "judge"}

    def __call__(self, answered: Answered) -> Valued:
        """The reward and "", or None and why there is none."""
        total = 0.0
        for name, weight in self.weights.items():
            value, problem = (
                self._terms[name].value(answered) if name in self._terms else self.share_right(name, answered)
            )
            if value is None:
                return None, problem
            total += weight * value
        return total, ""

    def share_right(self, metric: str, answered: Answered) -> Valued:
        """The mean credit over probes (0..1) by a metric; by the answers' own verdicts where it is the run's metric."""
        answers, found = answered.answers, self._metrics.get(metric)
        credit: Callable[[Case], float] | None = getattr(found, "credit", None)
        cases = [Case(p.question, p.golds, a.text) for p, a in zip(answered.task.probes, answers, strict=True)]
        if credit is not None:
            return fmean(map(credit, cases)), ""
        if found is None or metric == self.metric:
            return sum(a.correct for a in answers) / len(answers), ""
        verdicts = found.grade(cases)
        problem = next((v.problem for v in verdicts if v.right is None), "")
        return (None, problem) if problem else (fmean(bool(v.right) for v in verdicts), "")
