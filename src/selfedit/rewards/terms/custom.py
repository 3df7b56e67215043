"""The user's own reward, ``module:function``: called with a task and its answers, and accepted only if it returns a number."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ...config import RewardSettings
from ...engine.base import Engine
from ...errors import SettingsError
from ...types import Answer, Task
from .base import Answered, Valued

CustomReward = Callable[[Task, Sequence[Answer]], float]


class Custom:
    """A function of the user's own (reward.custom)."""

    def __init__(self, settings: RewardSettings, engine: Engine) -> None:
        """Raises SettingsError where the function can't be imported."""
        self.function = load_custom(settings.custom)

    def value(self, answered: Answered) -> Valued:
        """See `base.Term`."""
        return call_custom(self.function, answered.task, answered.answers)


def load_custom(name: str) -> CustomReward:
    """The function that ``module:function`` names.

    Raises:
        SettingsError: it can't be imported, or is no function.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # an installed command does not look in the current directory by itself
    try:
        found: CustomReward = getattr(importlib.import_module(module), function)
    except Exception as error:  # the user's module can raise anything as it is imported
        raise SettingsError(
            f"reward.custom: {name!r} can't be imported ({type(error).__name__}: {error}); give 'module:function' of an "
            "importable module, such as my_rewards:short_answers with my_rewards.py in the current directory"
        ) from None
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise SettingsError(f"reward.custom: {name!r} is not a function; it has to take (task, answers)")
    return found


def call_custom(reward: CustomReward, task: Task, answers: Sequence[Answer]) -> tuple[float | None, str]:
    """A task's reward, or None and what was wrong: the function raised, or returned anything but one finite number."""
    try:
        returned = reward(task, answers)
    except Exception as error:
        return None, f"reward.custom raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    with suppress(Exception):  # a number has no length; a user's object may raise anything
        return None, f"reward.custom returned {type(returned).__name__} of {len(returned)}, not one number"  # type: ignore
    try:
        value = float(returned)
    except Exception as error:  # no number, one too large for a float, an object of the user's own that raises
        return None, f"reward.custom returned {type(returned).__name__}, not a number ({type(error).__name__})"
    return (value, "") if math.isfinite(value) else (None, f"reward.custom returned {value}")
