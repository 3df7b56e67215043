"""torch's deterministic mode: on inside the block only, with cuBLAS told in time, and refusals that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from selfedit.engine.planning.determinism import deterministic
from selfedit.errors import RunError, SettingsError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def mode() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def in_mode(on: bool, warn_only: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(on, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No workspace is set, and what a test sets is gone after it."""
    monkeypatch.setenv(WORKSPACE, "")  # so that it is put back as it was
    monkeypatch.delenv(WORKSPACE)
    return monkeypatch


@pytest.fixture
def cuda(workspace: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if there were a GPU."""
    workspace.setattr(torch.cuda, "is_available", lambda: True)
    return workspace


@pytest.mark.parametrize("before", [(False, False), (True, True), (True, False)])
def test_the_mode_is_strict_inside_and_as_before_afterwards(before: tuple[bool, bool]) -> None:
    with in_mode(*before):
        with deterministic("cpu"):
            assert mode() == (True, False)
        assert mode() == before
        for error in (ValueError, RuntimeError, KeyboardInterrupt):
            with pytest.raises(error), deterministic("cpu"):
                raise error("whatever")
            assert mode() == before


def test_cublas_gets_a_fixed_workspace_where_there_is_cuda_and_none_is_set(cuda: pytest.MonkeyPatch) -> None:
    with deterministic("cpu"):
        assert WORKSPACE not in os.environ
    with deterministic("auto"):
        assert os.environ[WORKSPACE] == ":4096:8"
    assert os.environ[WORKSPACE] == ":4096:8"  # cuBLAS has read it: another value would tell a lie
    cuda.setenv(WORKSPACE, ":16:8")
    with deterministic("cuda"):
        assert os.environ[WORKSPACE] == ":16:8"


def test_another_workspace_is_refused_and_left_alone(cuda: pytest.MonkeyPatch) -> None:
    cuda.setenv(WORKSPACE, ":0:0")
    with pytest.raises(SettingsError, match=r"':0:0'; unset it"), deterministic("cuda"):
        pass
    assert os.environ[WORKSPACE] == ":0:0"
    assert mode() == (False, False)
    with deterministic("cpu"):  # which has no cuBLAS
        pass


def test_an_operation_without_a_deterministic_algorithm_is_named() -> None:
    named = r"put_ does not have .*; set it to false, or model\.device"
    with pytest.raises(SettingsError, match=named), deterministic("cpu"):
        torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
    with pytest.raises(RunError, match="other settings"), deterministic("cpu"):
        raise RunError("holds a run of other settings (model.deterministic)")
    assert mode() == (False, False)
