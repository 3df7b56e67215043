"""Algorithms that turn a round's edits and outcomes into a better policy."""

from __future__ import annotations

from collections.abc import Callable

from ..config import AlgorithmSettings
from ..engine.base import Engine
from .base import Algorithm, Improvement, Judged, State, judge

__all__ = ["Algorithm", "Improvement", "Judged", "State", "judge", "make_algorithm"]


def make_algorithm(engine: Engine, settings: AlgorithmSettings) -> Algorithm:
    """The algorithm that the settings name."""
    from .grpo import Grpo
    from .ppo import Ppo
    from .reinforce import Reinforce
    from .rest_em import RestEm

    kinds: dict[str, Callable[[Engine, AlgorithmSettings], Algorithm]]
    kinds = {"rest_em": RestEm, "reinforce": Reinforce, "grpo": Grpo, "ppo": Ppo}
    return kinds[settings.name](engine, settings)
