"""The reward `logprob`."""

from __future__ import annotations

from ...config import RewardSettings
from ...engine.base import Engine
from .base import Answered, Valued


class Logprob:
    """The gold answers' log-likelihood, in nats per token, averaged over the probes."""

    def __init__(self, settings: RewardSettings, engine: Engine) -> None:
        pass

    def value(self, answered: Answered) -> Valued:
        """See `base.Term`."""
        return sum(a.logprob for a in answered.answers) / len(answered.answers), ""
