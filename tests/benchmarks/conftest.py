"""Runs of a benchmark's own settings, made short."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from selfedit.config import Settings

SMALL: dict[str, dict[str, Any]] = {
    "edits": {"max_new_tokens": 16},
    "reward": {"max_answer_tokens": 3},
    "tasks": {"dev": 1, "probes_per_kind": 1},
    "model": {"dtype": "fp32"},
}


@pytest.fixture
def shorten(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``shorten(benchmark, inner={...})``: its ``settings_for`` plans short edits, and what is named in place of its own."""

    def changed(benchmark: ModuleType, **sections: dict[str, Any]) -> None:
        plan = benchmark.settings_for

        def short(*args: Any, **how: Any) -> Settings:
            settings = plan(*args, **how)
            update = {name: getattr(settings, name).model_copy(update=fields) for name, fields in (SMALL | sections).items()}
            return settings.model_copy(update=update)

        monkeypatch.setattr(benchmark, "settings_for", short)

    return changed
