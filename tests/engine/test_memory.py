"""The cost model against what torch allocates, and the plan that follows from it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from made_updates import sequence, update
from torch.profiler import ProfilerActivity, profile

from selfedit.config import AtOnce
from selfedit.engine.adapters.adapter_context import AdapterContext
from selfedit.engine.inference.cache import RoomyLayer
from selfedit.engine.model.body import Body
from selfedit.engine.model.body_pool import BodyPool
from selfedit.engine.model.loading import DTYPES, load_outline
from selfedit.engine.planning.memory import GIB, Costs, Load, adapter_size, fitting, most_useful, split
from selfedit.engine.torch_engine import TorchEngine
from selfedit.engine.training import fit
from selfedit.engine.training.cohort import Cohort
from selfedit.engine.training.workers import MemberLimit
from selfedit.errors import OutOfMemoryError, SettingsError
from selfedit.evaluation.machine import EMBEDDED
from selfedit.evaluation.peft_parity import distance
from selfedit.types import Update

RANK, LENGTH, ROWS = 8, 40, 16
HEAP = 1.25  # a process takes more than torch asks for


def peak(work: Callable[[], object]) -> int:
    """The most bytes that torch held for ``work`` at any time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        work()
    events = [(e.start_ns(), e.nbytes()) for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        most = max(most, held)
    return most


def within_a_factor_of_2(predicted: int, measured: int, above: float = 2) -> bool:
    return measured / 2 <= predicted / HEAP <= above * measured


@pytest.fixture(params=["embedded fp32", "llama fp32", "gpt2 fp32", "qwen2 bf16"])
def measured(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> tuple[TorchEngine, Costs]:
    name, dtype = request.param.split()
    path = EMBEDDED if name == "embedded" else checkpoints[name]
    engine = TorchEngine.load(str(path), device="cpu", dtype=dtype)
    outline = load_outline(str(path), trust_remote_code=False, allow_pickle=False)
    return engine, Costs.of(outline, DTYPES[dtype], torch.device("cpu"))


def test_the_outline_costs_what_the_loaded_model_does(measured: tuple[TorchEngine, Costs]) -> None:
    engine, costs = measured
    assert costs == Costs.of(engine.model, engine.model.dtype, torch.device("cpu"))
    held = sum(t.numel() * t.itemsize for t in [*engine.model.parameters(), *engine.model.buffers()])
    assert costs.base == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize("members", [1, 6])
def test_training_takes_what_is_predicted(measured: tuple[TorchEngine, Costs], members: int) -> None:
    engine, costs = measured
    rng = random.Random(0)
    sequences = tuple(sequence(rng, LENGTH) for _ in range(4))
    updates = [Update(sequences, 2, 4, 1e-3, RANK, 16.0, seed) for seed in range(members)]
    size = adapter_size(engine.model, "all-linear", RANK)
    load = Load(LENGTH, 4 * LENGTH, size, cohorts=1, banks=1, m_step=4 * LENGTH, policy=size)
    engine.apply(updates[:1], on=None)
    used = peak(lambda: engine.apply(updates, on=None))
    assert within_a_factor_of_2(split(costs, load, AtOnce(members=members)).training, used)
    assert members > 1 or within_a_factor_of_2(split(costs, load, AtOnce()).m_step, used)


def test_members_take_what_is_predicted_where_tokens_are_few(measured: tuple[TorchEngine, Costs]) -> None:
    engine, costs = measured
    updates = [Update((sequence(random.Random(0), 4),), 2, 1, 1e-3, 32, 16.0, seed) for seed in range(4)]
    size = adapter_size(engine.model, "all-linear", 32)
    load = Load(4, 4, size, cohorts=1, banks=1, m_step=4, policy=size)
    predicted = split(costs, load, AtOnce(members=4)).training
    assert 4 * costs.member(size) > predicted / 2
    assert within_a_factor_of_2(predicted, peak(lambda: engine.apply(updates, on=None)))


def test_scoring_and_decoding_take_what_is_predicted(measured: tuple[TorchEngine, Costs]) -> None:
    engine, costs = measured
    prompts = [[4 + (7 * i + t) % 250 for t in range(LENGTH)] for i in range(ROWS)]
    load = Load(LENGTH, LENGTH, 1, cohorts=1, banks=1, m_step=1, policy=1)
    parts = split(costs, load, AtOnce(rows=ROWS, tokens=ROWS * LENGTH))
    pairs = [(prompt[:2], prompt[2:]) for prompt in prompts]
    # Where nearly every token is a target, passes have fewer tokens.
    assert within_a_factor_of_2(parts.scoring, peak(lambda: engine.score([pairs], on=None)), above=3)

    def write() -> None:
        engine.sample(prompts, list(range(ROWS)), on=None, max_new_tokens=LENGTH // 2, temperature=1.0, top_p=0.95)

    assert within_a_factor_of_2(parts.decoding, peak(write))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel does not say a process's peak")
def test_a_process_with_a_model_of_real_widths_takes_what_is_planned_within_30_percent() -> None:
    script, environment = Path(__file__).parent / "measured_memory.py", {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    measured = json.loads(done.stdout)
    ratios = {part: predicted / used for part, (predicted, used) in measured.items()}
    # What decides is training. In scoring and writing much depends on what the heap keeps.
    within = {"base": 1.01, "training": 1.3, "m_step": 1.3, "scoring": 2, "decoding": 2}
    assert all(1 / within[part] <= ratio <= within[part] for part, ratio in ratios.items()), ratios


def test_a_policys_minibatch_is_cut_into_forwards_before_memory_is_too_little() -> None:
    small = Costs.of(load_outline(str(EMBEDDED), trust_remote_code=False, allow_pickle=False), torch.float32, torch.device("cpu"))
    load = Load(sequence=512, step=8192, adapter=100_000, cohorts=2, banks=4, m_step=20_480, policy=400_000)
    roomy, tight = (fitting(small, load, int(gib * GIB), AtOnce()) for gib in (64, 1))
    assert roomy.tokens == AtOnce().tokens
    assert tight.members == AtOnce().members  # their forwards are cut instead
    assert 512 <= tight.tokens < load.step
    parts = split(small, load, tight)
    assert parts.peak <= 1 * GIB
    assert split(small, load, tight._replace(tokens=load.m_step)).m_step > 10 * GIB / 8


BIG = Costs(
    weights=7_600_000_000,
    linear=2_523_136,
    widest=18_944,
    width=3584,
    layers=28,
    heads=28,
    cached=28_672,
    vocabulary=152_064,
    number=2,
    keeps_scores=False,
)
PAPER = Load(sequence=1024, step=1024, adapter=10_000_000, cohorts=1, banks=4, m_step=20_480, policy=160_000_000)


def test_what_fits_grows_with_the_memory_and_stays_within_it() -> None:
    before = AtOnce(0, 0, 0)
    for gib in (16, 24, 40, 72, 140):
        at_once = fitting(BIG, PAPER, gib * GIB, AtOnce(members=64))
        assert all(a >= b for a, b in zip(at_once, before, strict=True))
        before = at_once
        parts = split(BIG, PAPER, at_once)
        if at_once.tokens > PAPER.sequence:
            assert parts.base + parts.training <= gib * GIB
    assert fitting(BIG, PAPER, 72 * GIB, AtOnce(members=64)) == AtOnce(64, 128, 6829)  # a 7B model on an 80 GB GPU
    assert fitting(BIG, PAPER, 14 * GIB, AtOnce()) == AtOnce(1, 1, 1)  # not even the base


def test_a_text_being_written_needs_room_for_more_keys_and_values() -> None:
    layer, (seen, width) = RoomyLayer(), (2048, BIG.cached // (2 * BIG.layers))
    keys, _ = layer.update(*torch.zeros(2, 1, 1, seen, width, dtype=torch.bfloat16))
    buffers = 2 * BIG.layers * keys.untyped_storage().nbytes()
    sampling = 12 * 8 * BIG.vocabulary
    assert BIG.decoded_row(1, seen - 1) == buffers + sampling
    assert buffers > 1.1 * seen * BIG.cached * BIG.number


def test_a_cpu_is_busy_with_eight_members_and_a_gpu_wants_more_where_they_are_small() -> None:
    assert most_useful(torch.device("cpu"), 100) == AtOnce() == AtOnce(8, 128, 8192)
    assert most_useful(torch.device("cuda"), 352).members == 46
    assert most_useful(torch.device("cuda"), 10).members == 64
    assert most_useful(torch.device("cuda"), 8192).members == 8


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
NO_RAM = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: error code 12")


def room_for(members: int, error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cohorts of more members run out of memory in their second step; the sizes of those that began are returned."""
    begun: list[int] = []
    step = Cohort.step

    def limited(self: Cohort, place: AdapterContext) -> None:
        if self.slots[0].step == 0:
            begun.append(self.active)
        if self.active > members and self.slots[0].step == 1:
            raise error
        step(self, place)

    monkeypatch.setattr(Cohort, "step", limited)
    return begun


@pytest.mark.parametrize("error", [FULL, NO_RAM])
@pytest.mark.parametrize("threads", [1, 2])
def test_where_memory_runs_out_half_as_many_train_at_once_and_the_numbers_are_theirs(
    error: RuntimeError, threads: int, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = [update(k, steps=3) for k in range(16)]
    engines = [TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=k)) for k in (8, 2)]
    before = engines[0].base_sha256()
    at_eight, at_two = (engine.apply(updates, on=None) for engine in engines)
    begun = room_for(3, error, monkeypatch)
    told: list[tuple[int, str]] = []
    engines[0].limit_members(8, lambda members, reason: told.append((members, reason)))
    torch.set_num_threads(threads)
    try:
        bank = engines[0].apply(updates, on=None)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(bank.flat, at_two.flat)
    assert bank.losses == at_two.losses
    assert bank.trained_tokens == at_two.trained_tokens
    assert all(distance(bank.adapter(k), at_eight.adapter(k)) <= 1e-4 for k in range(16))
    assert [members for members, _ in told] == [4, 2]
    assert str(error)[:12] in told[0][1]
    begun.clear()
    engines[0].apply(updates, on=None)
    assert set(begun) == {2}  # for good
    assert engines[0].base_sha256() == before
    assert not any("forward" in vars(module) for module in engines[0].model.modules())


def test_a_paused_training_that_runs_out_begins_again_with_fewer_members_at_once(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = [update(k, steps=6) for k in range(6)]
    engines = [TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=k)) for k in (6, 2)]
    trainings = [engine.training(updates, on=None) for engine in engines]
    banks = [training.run(until=2) for training in trainings]
    early = banks[0].adapter(1)
    for training in trainings:
        training.run(until=4, members=[0, 2, 3, 4, 5])
    step = Cohort.step

    def limited(self: Cohort, place: AdapterContext) -> None:
        if self.active > 2 and self.slots[0].step == 5:
            raise FULL
        step(self, place)

    monkeypatch.setattr(Cohort, "step", limited)
    for training, bank in zip(trainings, banks, strict=True):
        assert training.run(members=[0, 2, 3, 4]) is bank
    assert torch.equal(banks[0].flat, banks[1].flat)
    assert banks[0].losses == banks[1].losses
    assert banks[0].trained_tokens == banks[1].trained_tokens
    assert [len(losses) for losses in banks[0].losses] == [6, 2, 6, 6, 6, 4]
    assert distance(banks[0].adapter(1), early) <= 1e-4  # who was dropped before the memory ran out is there again


def test_memory_that_runs_out_after_the_training_is_the_same(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = [update(k, steps=2) for k in range(4)]
    engines = [TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=k)) for k in (4, 2)]
    at_two, measure = engines[1].apply(updates, on=None), fit.token_logprobs

    def limited(*arguments: Any) -> Any:
        if sum(map(bool, arguments[3])) > 2:  # members with a sequence
            raise FULL
        return measure(*arguments)

    monkeypatch.setattr(fit, "token_logprobs", limited)
    bank = engines[0].apply(updates, on=None)
    assert torch.equal(bank.flat, at_two.flat)
    assert bank.shift == at_two.shift


def test_adapters_that_do_not_fit_together_are_an_error_with_a_next_step(
    llama: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = torch.zeros

    def limited(*shape: Any, **kind: Any) -> torch.Tensor:
        if shape[0] == 3:
            raise NO_RAM
        return zeros(*shape, **kind)

    monkeypatch.setattr(torch, "zeros", limited)
    with pytest.raises(OutOfMemoryError, match=r"adapters of 3 updates.*model\.members_at_once"):
        llama.apply([update(1)] * 3, on=None)


def test_fewer_members_are_not_made_up_for_by_more_workers(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=4))
    room_for(2, FULL, monkeypatch)
    lent: list[int] = []
    lend = BodyPool.lend
    monkeypatch.setattr(BodyPool, "lend", lambda pool, n=1: (lent.append(n), lend(pool, n))[1])
    torch.set_num_threads(4)
    try:
        engine.apply([update(k, steps=2) for k in range(8)], on=None)
    finally:
        torch.set_num_threads(1)
    assert max(lent) == 2


def test_single_members_that_do_not_fit_beside_each_other_train_one_after_another(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = [update(k, steps=2) for k in range(5)]
    engines = [TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=k)) for k in (2, 1)]
    at_one = engines[1].apply(updates, on=None)
    workers, tried, told = fit.on_workers, [], []

    def limited(bodies: Sequence[Body], pieces: Sequence[Any], work: Any) -> None:
        if isinstance(pieces[0], range):  # of the probe behind it
            return workers(bodies, pieces, work)
        beside = min(len(bodies), len(pieces))
        tried.append((len(pieces[0]), beside))
        if beside * len(pieces[0]) > 1:
            raise FULL
        torch.set_num_threads(1)  # as above: the number of threads can change the last digit
        workers(bodies, pieces, work)
        torch.set_num_threads(3)

    monkeypatch.setattr(fit, "on_workers", limited)
    engines[0].limit_members(2, lambda members, reason: told.append(members))
    torch.set_num_threads(3)
    try:
        bank = engines[0].apply(updates, on=None)
        assert tried == [(2, 3), (1, 3), (1, 1)]
        engines[0].apply(updates, on=None)
        assert tried[3:] == [(1, 1)]  # for good
    finally:
        torch.set_num_threads(1)
    assert told == [1, 1]
    assert torch.equal(bank.flat, at_one.flat)
    assert bank.shift == at_one.shift


def test_members_that_train_alone_whatever_the_limit_is_are_told_as_one() -> None:
    limit, told = MemberLimit(8, 8192), []
    limit.set(8, lambda members, reason: told.append((members, reason)))
    limit.lower(1, 3, "full")  # a member in each of three cohorts
    assert told == [(1, "full")]
    assert limit.workers(99) == 1
    limit.set(8, None)
    assert limit.workers(99) == 13


@pytest.mark.parametrize("threads", [1, 2])
def test_one_member_that_does_not_fit_is_an_error_with_a_next_step(
    threads: int, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine.load(str(checkpoints["llama"]), device="cpu", at_once=AtOnce(members=1))
    room_for(0, FULL, monkeypatch)
    torch.set_num_threads(threads)
    try:
        with pytest.raises(OutOfMemoryError, match=r"(?s)2 GiB.*inner\.batch_size") as caught:
            engine.apply([update(1), update(2)], on=None)
    finally:
        torch.set_num_threads(1)
    assert isinstance(caught.value, MemoryError)


def test_another_error_is_not_taken_for_a_lack_of_memory(llama: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = room_for(0, RuntimeError("shapes do not match"), monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        llama.apply([update(1), update(2)], on=None)
    assert begun == [2]
    with pytest.raises(SettingsError, match="at least 1"):
        llama.limit_members(0)
