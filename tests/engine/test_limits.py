"""Torch has no more threads than the control groups leave processors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from selfedit.config import make_settings
from selfedit.engine.planning import limits
from selfedit.engine.planning.limits import cpu_limit, threads_within_limits
from selfedit.evaluation.machine import numerics


def write(files: Path, **contents: str) -> Path:
    """Files by their paths, as in ``sys/fs/cgroup/cpu.max``."""
    for name, text in contents.items():
        file = files / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return files


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        # a group around this one has less
        (
            {
                "proc/self/cgroup": "0::/app/worker\n",
                "sys/fs/cgroup/app/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/app/worker/cpu.max": "600000 100000\n",
            },
            3,
        ),
        # version 1, in a container and outside of one
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "50000\n",
            },
            2,
        ),
    ],
)
def test_the_processors_that_control_groups_leave(files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    assert cpu_limit(write(tmp_path, **files)) == limit


@pytest.mark.usefixtures("four_threads")
def test_torch_has_as_many_threads_as_processors_while_a_run_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    with threads_within_limits(tmp_path):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4
    monkeypatch.setattr(limits, "cpu_limit", lambda files: 3)
    with numerics(make_settings({})):
        assert torch.get_num_threads() == 3
    monkeypatch.setattr(limits, "cpu_limit", lambda files: 64)
    with numerics(make_settings({})):
        assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_a_number_of_threads_that_the_user_named_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"sys/fs/cgroup/cpu.max": "100000 100000\n"})
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with threads_within_limits(tmp_path):
        assert torch.get_num_threads() == 4
