"""Cohorts beside each other on several threads: the same bits, prompt ends, the base untouched."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_updates import update

from selfedit.config import AtOnce
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training.workers import Steps, on_workers


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_members_are_the_same_bits_on_one_worker_and_on_two(checkpoints: dict[str, Path], two_threads: None) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=2))
    policy = engine.apply([update(20)], on=None).adapter(0)
    updates = [update(k, steps=3 + k % 3) for k in range(7)]
    before = engine.base_sha256()
    beside = engine.apply(updates, on=policy)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    alone = engine.apply(updates, on=policy)
    assert torch.equal(beside.flat, alone.flat)
    assert beside.losses == alone.losses
    assert engine.base_sha256() == before


def test_replicas_hang_hooks_of_their_own_on_the_same_tensors(llama: TorchEngine) -> None:
    body = llama.body
    replica = body.replica()
    mine, other = dict(body.model.named_parameters()), dict(replica.model.named_parameters())
    assert mine.keys() == other.keys()
    assert all(mine[name] is other[name] for name in mine)
    path = llama.apply([update(1)], on=None).layout.targets[0].path
    assert body.model.get_submodule(path) is not replica.model.get_submodule(path)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_one_piece_stops_the_others_between_steps(
    error: type[BaseException], llama: TorchEngine, two_threads: None
) -> None:
    bodies = [llama.body, llama.body.replica()]
    begun: list[int] = []
    closed: list[int] = []

    def work(_: object, piece: int) -> Steps:
        begun.append(piece)
        try:
            for step in range(2000):
                if piece == 1 and step == 3:
                    raise error("piece 1")
                time.sleep(0.01)
                yield
        finally:
            closed.append(piece)

    with pytest.raises(error, match="piece 1"):
        on_workers(bodies, range(5), work)
    assert sorted(begun) == sorted(closed) == [0, 1]
    assert torch.get_num_threads() == 2


def test_ctrl_c_stops_every_piece_between_steps(llama: TorchEngine, two_threads: None) -> None:
    closed: list[int] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it

    def work(_: object, piece: int) -> Steps:
        try:
            for step in range(2000):
                if piece == 1 and step == 3:
                    os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C sends: Python tells the main thread alone
                time.sleep(0.01)
                yield
        finally:
            closed.append(piece)

    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            on_workers([llama.body, llama.body.replica()], range(5), work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(closed) == [0, 1]
    assert time.monotonic() - began < 5


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another allocator than glibc's")
def test_what_a_piece_freed_goes_back_to_the_system(llama: TorchEngine) -> None:
    kept = []

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def work(body: object, piece: int) -> Steps:
        parts = [bytearray(100_000) for _ in range(3000)]  # each below the size that glibc asks the system for by itself
        held.append(resident())
        kept.extend(parts[::100])  # so that no heap can shrink from its end
        yield

    held: list[int] = []
    before = resident()
    on_workers([llama.body], [0], work)
    assert held[0] - before > 200e6
    assert resident() - before < 50e6
