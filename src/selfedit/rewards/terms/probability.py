"""The reward `probability`."""

from __future__ import annotations

from statistics import fmean

from ...config import RewardSettings
from ...engine.base import Engine
from .base import Answered, Valued


class Probability:
    """The gold answers' probability per token (0..1), averaged over the probes.

    Between two answers that a model would never give it sees no difference, where the log-likelihood sees a large one.
    """

    def __init__(self, settings: RewardSettings, engine: Engine) -> None:
        pass

    def value(self, answered: Answered) -> Valued:
        """See `base.Term`."""
        return fmean(answer.probability for answer in answered.answers), ""
