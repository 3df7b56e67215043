"""torch's deterministic mode: the same bits every time, on one machine with the same versions and number of threads.

What it asks of the engine is that no operation on a run's path is one that has no deterministic algorithm on CUDA: texts are
sampled by sums of integers (`decode.sampler`), the loss takes the one-dimensional NLL loss without a reduction. Fused attention
picks deterministic kernels by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...errors import SettingsError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACES = (":4096:8", ":16:8")  # with others cuBLAS may add up in another order


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Deterministic algorithms inside the block, on all threads; afterwards torch's mode is as it was.

    For CUDA ``CUBLAS_WORKSPACE_CONFIG`` is set where it is not, and stays: cuBLAS reads it once, when it is first used.

    Raises:
        SettingsError: the environment has set another workspace, or something in the block uses an operation that has no
            deterministic algorithm.
    """
    if not device.startswith("cpu") and torch.cuda.is_available():
        asked = os.environ.setdefault(_WORKSPACE, _FIXED_WORKSPACES[0])
        if asked not in _FIXED_WORKSPACES:
            raise SettingsError(
                f"model.deterministic needs {_WORKSPACE} to be {' or '.join(_FIXED_WORKSPACES)}, but the environment sets it to "
                f"{asked!r}; unset it, or set model.deterministic to false"
            )
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "use_deterministic_algorithms" not in str(error):
            raise
        reason = " ".join(str(error).split())[:400]
        raise SettingsError(
            f"model.deterministic: an operation can't be had that way ({reason}); set it to false, or model.device to 'cpu'"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
