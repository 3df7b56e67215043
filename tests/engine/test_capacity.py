"""What a run plans with is a share of the machine's total memory or of a limit, whatever is free."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from selfedit.engine.planning import capacity
from selfedit.engine.planning.capacity import free_bytes, free_ram, readable_gib, total_ram, usable_bytes
from selfedit.engine.planning.memory import GIB

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def write(files: Path, **contents: str) -> None:
    for name, text in contents.items():
        file = files / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A machine of 8 GiB of which 6 GiB are free."""
    write(tmp_path, proc__meminfo=f"MemTotal: {8 << 20} kB\nMemFree: 1 kB\nMemAvailable:    {6 << 20} kB\n")
    return tmp_path


def test_the_total_is_the_machines_where_nothing_limits_the_process(files: Path) -> None:
    write(files, sys__fs__cgroup__memory_dot_max="max\n")
    assert (total_ram(files), free_ram(files)) == (8 * GIB, 6 * GIB)
    (files / "proc/meminfo").unlink()
    assert total_ram(files) == free_ram(files) == 8 * GIB  # a guess where the system says nothing


@pytest.mark.parametrize("inside", ["", "app/worker"])
def test_a_limit_of_a_control_group_counts_also_of_one_around_it(inside: str, files: Path) -> None:
    write(files, proc__self__cgroup=f"0::/{inside}\n")
    group = files / "sys/fs/cgroup"
    write(group, memory_dot_max=f"{2 * GIB}\n", memory_dot_current=f"{GIB}\n")
    assert (total_ram(files), free_ram(files)) == (2 * GIB, GIB)
    write(group, memory_dot_stat=f"anon 5\ninactive_file {GIB // 2}\n")  # cached files are given up
    assert free_ram(files) == GIB + GIB // 2
    if inside:
        write(group / "app", memory_dot_max=f"{GIB}\n")
        write(group / inside, memory_dot_max="max\n")
        assert total_ram(files) == GIB


def test_the_limit_at_which_a_group_is_made_to_wait_counts_too(files: Path) -> None:
    write(files, proc__self__cgroup="0::/app\n")
    group = files / "sys/fs/cgroup/app"
    write(group, memory_dot_max="max\n", memory_dot_high=f"{2 * GIB}\n", memory_dot_current=f"{GIB}\n")
    assert (total_ram(files), free_ram(files)) == (2 * GIB, GIB)
    write(group, memory_dot_max=f"{GIB}\n")
    assert total_ram(files) == GIB


def test_a_limit_of_version_1_counts_wherever_it_is_mounted(files: Path) -> None:
    group = files / "sys/fs/cgroup/memory"
    write(group, memory_dot_limit_in_bytes=f"{1 << 63}\n")
    write(files, proc__self__cgroup="9:cpu:/\n8:memory:/docker/abc\n0::/\n")
    assert total_ram(files) == 8 * GIB
    write(group / "docker/abc", memory_dot_limit_in_bytes=f"{3 * GIB}\n", memory_dot_usage_in_bytes=f"{2 * GIB}\n")
    write(group / "docker/abc", memory_dot_stat=f"inactive_file 1\ntotal_inactive_file {GIB}\n")
    assert (total_ram(files), free_ram(files)) == (3 * GIB, 2 * GIB)
    write(group, memory_dot_limit_in_bytes=f"{GIB}\n")  # a container sees its own group here
    assert total_ram(files) == GIB


def test_a_limit_of_the_address_space_counts(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (5 * GIB, resource.RLIM_INFINITY))
    assert total_ram(files) == 5 * GIB


def test_a_share_of_the_total_is_planned_with_whatever_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "total_ram", lambda: 16 * GIB)
    for free in (15 * GIB, GIB):
        monkeypatch.setattr(capacity, "free_ram", lambda free=free: free)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80 * GIB))
        assert (usable_bytes(CPU), free_bytes(CPU)) == (8 * GIB, free)
        assert (usable_bytes(CUDA), free_bytes(CUDA)) == (71 * GIB, free)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, GIB))
    assert usable_bytes(CUDA) == 0


def test_a_size_is_rounded_down_to_what_a_reader_remembers() -> None:
    sizes = {
        71.9: 71.0,
        4.0: 4.0,
        3.999: 3.9,
        1.0: 1.0,
        0.5: 0.5,
        0.0488: 0.048,
        0.00199: 0.0019,
        0.0: 0.001,
        -1.0: 0.001,
    }
    assert {gib: readable_gib(int(gib * GIB)) for gib in sizes} == sizes
