"""The algorithm `newest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel

from selfedit.algorithms.base import Improvement, RatedEdit, State
from selfedit.config import AlgorithmSettings
from selfedit.engine.base import Adapter, Engine


class NewestSettings(BaseModel):
    """The table ``[algorithm.newest]``."""

    mark: float = 1.0


class Newest:
    """Takes a fresh adapter as the policy in every round, and counts the rounds."""

    Settings: ClassVar = NewestSettings
    defaults: ClassVar[dict[str, Any]] = {"rank": 2}

    def __init__(self, engine: Engine, settings: AlgorithmSettings) -> None:
        self.engine, self.settings = engine, settings

    def improve(self, policy: Adapter | None, rated: Sequence[RatedEdit], state: State, seed: int) -> Improvement:
        how = self.settings
        fresh = self.engine.initial_adapter(rank=how.rank, alpha=how.alpha, seed=seed, targets=how.targets)
        rounds = state.get("rounds", torch.zeros(1)) + 1
        figures = {"learned_from": len(rated), "mark": how.own("newest", NewestSettings).mark, "rank": how.rank}
        return Improvement(fresh, {"rounds": rounds}, figures)
