"""What a number was measured on: the processor, its matrix-product peak, and this process's memory."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe() -> str:
    """The processor, its cores, and torch's version."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        name = found[1] if found else name
    ask = getattr(torch.cpu, "get_capabilities", None)
    units = ", AMX" if ask and ask().get("amx_bf16") else ""
    return f"{name}{units}, {os.cpu_count()} cores, torch {torch.__version__}"


def matmul_peak(dtype: torch.dtype, size: int = 2048, repeats: int = 10, device: str = "cpu") -> float:
    """FLOP/s of the fastest of ``repeats`` square products (on a CPU: on torch's number of threads)."""
    a = torch.randn(size, size, device=device).to(dtype)
    fastest = float("inf")
    for _ in range(repeats + 1):
        began = time.perf_counter()
        torch.mm(a, a)
        if device != "cpu":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest


def forget_peak_memory() -> None:
    """Start the high-water mark of the resident set anew, where the system can (Linux)."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_memory_gib() -> float:
    """The resident set's high-water mark in GiB since `forget_peak_memory` (elsewhere: of the whole process)."""
    if _STATUS.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
