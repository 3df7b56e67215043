"""Fixtures of the tests of models: a folder of models of the test's own, and what a command would say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def told() -> list[str]:
    """The sentences that were told."""
    return []


@pytest.fixture
def tell(told: list[str]) -> Callable[[str, int, int], None]:
    def keep(sentence: str, _done: int, _total: int) -> None:
        if sentence:
            told.append(sentence)

    return keep
