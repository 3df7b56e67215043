"""A judge to ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from judge_server import JudgeServer


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()
