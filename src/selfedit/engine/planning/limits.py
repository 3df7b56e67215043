"""What this process may have at most: the memory and the processors that a control group (version 1 or 2) or its user leaves."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path("/")
# Where the groups of a controller are; "" is version 2, which has all controllers in one tree.
_ROOTS = {
    "": ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
    "memory": ("sys/fs/cgroup/memory",),
    "cpu": ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu"),
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def memory_limits(files: Path = ROOT) -> dict[Path, int]:
    """The memory limits in bytes of this process's control group and of the groups around it, by the group's directory.

    Also ``memory.high``: beyond it the system does not end a process, but makes it wait.
    """
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    found = {group: [n for name in names if (n := number_in(group / name))] for group in _groups(files, "memory")}
    return {group: min(limits) for group, limits in found.items() if limits}


def cpu_limit(files: Path = ROOT) -> int | None:
    """How many processors this process's control groups leave it, rounded up; None where they set no limit.

    A processor that does not exist is no limit either: it is for the caller to take the lower number.
    """
    shares = [share for group in _groups(files, "cpu") if (share := _share(group))]
    return max(1, math.ceil(min(shares) - 1e-9)) if shares else None


@contextmanager
def threads_within_limits(files: Path = ROOT) -> Iterator[None]:
    """In this block torch has at most as many threads as the control groups leave processors: more would only wait.

    Who sets a number of threads (OMP_NUM_THREADS, MKL_NUM_THREADS) keeps it.
    """
    before, limit = torch.get_num_threads(), cpu_limit(files)
    if limit is None or limit >= before or any(os.environ.get(name) for name in _THREADS):
        yield
        return
    torch.set_num_threads(limit)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def address_space() -> int | None:
    """The limit of this process's address space in bytes (RLIMIT_AS); None where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def number_in(file: Path) -> int:
    """The number in a file; 0 where there is none (also for "max", which is no limit)."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _groups(files: Path, controller: str) -> list[Path]:
    """The directories of this process's control group and of the groups around it, for one controller."""
    roots = {name: [files / root for root in _ROOTS[name]] for name in ("", controller)}
    groups = [root for some in roots.values() for root in some]  # in a container these are its own
    try:
        lines = (files / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for root in roots.get(controller if controller in controllers.split(",") else controllers, []):
            own = root / path.lstrip("/")
            groups += [group for group in (own, *own.parents) if root in group.parents]
    return groups


def _share(group: Path) -> float:
    """Processors that a group may use; 0 where it has no limit."""
    try:  # version 2: "quota period", in microseconds, or "max period"
        quota, period = map(int, (group / "cpu.max").read_text().split())
    except (OSError, ValueError):
        quota, period = number_in(group / "cpu.cfs_quota_us"), number_in(group / "cpu.cfs_period_us")
    return quota / period if quota > 0 and period > 0 else 0.0
