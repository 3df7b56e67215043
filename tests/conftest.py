"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("squad/squad_val.json")`` is that file's path; the test is skipped where the file is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("SELFEDIT_DATA") or beside)

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"{path} is absent: set SELFEDIT_DATA to the folder that holds {name}, or put it in {beside}")
        return path

    return find
