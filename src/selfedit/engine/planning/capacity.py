"""How much memory a run may plan with: a share of the machine's total or of this process's limit, whichever is smaller.

It does not depend on what happens to be free, so that the same command has the same plan every time. What is free at the moment
only decides whether the user is warned.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from .limits import address_space, memory_limits, number_in
from .memory import GIB

# Other programs use the RAM, too, and the cost model may be off; on a GPU the driver's context and libraries take the reserve.
_SHARE_OF_GPU, _GPU_RESERVE, _SHARE_OF_RAM = 0.9, GIB, 0.5
_UNKNOWN_RAM = 8 * GIB  # taken where the system does not say
_LEAST_GIB = 1e-3
_ROOT = Path("/")


def usable_bytes(device: torch.device) -> int:
    """What a run may plan with: 0.9 of a GPU's total memory minus 1 GiB; for a CPU half of the RAM, or of a lower limit."""
    if device.type == "cuda":
        return max(0, int(_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[1]) - _GPU_RESERVE)
    return int(_SHARE_OF_RAM * total_ram())


def free_bytes(device: torch.device) -> int:
    """What programs can still get on the device at the moment."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_ram()


def readable_gib(size: int) -> float:
    """Bytes as GiB, rounded down: to whole GiB, and below 4 GiB to two significant digits."""
    gib = max(_LEAST_GIB, size / GIB)
    if gib >= 4:
        return float(math.floor(gib))
    unit = 10.0 ** (math.floor(math.log10(gib)) - 1)
    return round(math.floor(gib / unit + 1e-9) * unit, 9)


def total_ram(files: Path = _ROOT) -> int:
    """Bytes of RAM that this process can have at most: the machine's, a control group's limit (v1 or v2), or RLIMIT_AS."""
    sizes = [_meminfo(files, "MemTotal") or _physical_pages(files) or _UNKNOWN_RAM, *memory_limits(files).values()]
    return min(filter(None, (*sizes, address_space())))


def free_ram(files: Path = _ROOT) -> int:
    """Bytes of RAM that this process can still get: the machine's and, in a control group, what its limit leaves."""
    sizes = [_meminfo(files, "MemAvailable") or total_ram(files)]
    for group, limit in memory_limits(files).items():
        used = number_in(group / "memory.current") or number_in(group / "memory.usage_in_bytes") or 0
        sizes.append(max(0, limit - max(0, used - _cached_files(group))))
    return min(sizes)


def _meminfo(files: Path, name: str) -> int:
    """A line of /proc/meminfo in bytes; 0 where it is missing."""
    try:
        lines = (files / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def _physical_pages(files: Path) -> int:
    """The machine's RAM where there is no /proc; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if files == _ROOT else 0
    except (AttributeError, ValueError, OSError):
        return 0


def _cached_files(group: Path) -> int:
    """Bytes of a control group's usage that are cached files, which the system drops when programs need the memory."""
    try:
        rows = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
        sizes = {row[0]: int(row[1]) for row in rows}
    except (OSError, ValueError, IndexError):
        return 0
    return sizes.get("total_inactive_file", sizes.get("inactive_file", 0))
