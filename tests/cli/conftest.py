"""Fixtures of the command's tests: the report's hand-made summaries, and an experiment that needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "report"))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``stub("selfedit.evaluation.experiment", plan=...)`` puts a module of these functions in the real one's place."""

    def put(name: str, **functions: Any) -> None:
        module = ModuleType(name)
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return put
