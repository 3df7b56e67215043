"""Calls that read, from several threads under different adapters while updates train: each as it is alone, bit for bit.

On one thread here, and on two in a process of its own (`python test_reading_meanwhile.py 2`): there, cohorts train on two
workers with one thread each, while reading calls use both.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made_updates import strong

from selfedit.config import AtOnce
from selfedit.engine.adapters.adapter_context import AdapterContext
from selfedit.engine.base import LocalEngine
from selfedit.engine.model.body import Body
from selfedit.engine.model.body_pool import BodyPool, ThreadTurns
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.machine import EMBEDDED
from selfedit.types import Adapter, TrainSequence, Update

ROOT = Path(__file__).resolve().parents[2]


def texts_of(seed: int, n: int, length: int) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(4, 500) for _ in range(length + i)) for i in range(n)]


def updates() -> list[Update]:
    sequences = [tuple(TrainSequence.whole(ids) for ids in texts_of(k, 4, 24)) for k in range(4)]
    return [Update(s, steps=4, batch_size=2, lr=1e-3, rank=8, alpha=16.0, seed=k) for k, s in enumerate(sequences)]


def read(engine: LocalEngine, on: Adapter, seed: int) -> list[object]:
    """What every kind of reading call gives under one adapter.

    Products of five rows, as in decoding here, differ in their last bits between one thread and two.
    """
    prompts = texts_of(seed, 5, 4)
    sequences = [TrainSequence.whole(ids) for ids in texts_of(seed + 1, 2, 12)]
    how = {"on": on, "temperature": 0.9}
    return [
        engine.answer([prompts], on=on, max_new_tokens=2),
        [one.logprobs for one in engine.score([[(prompt, (7, 8, 9)) for prompt in prompts]], on=on)[0]],
        engine.sample(prompts, range(5), max_new_tokens=2, top_p=0.9, **how),
        engine.choose(prompts, range(5), [["yes", "no"]], **how),
        engine.sequence_loss(sequences, on=on),
        engine.token_kl(sequences, on=on),
        [engine.encode("a <|endoftext|> b"), engine.encode_chat("Who is it?"), engine.encode_prompt("the")],
    ]


def meanwhile(threads: int, model: str) -> None:
    """Raises where a call gives anything else than alone."""
    torch.set_num_threads(threads)
    engine = TorchEngine.load(model, device="cpu", at_once=AtOnce(members=2))
    adapters = [strong(engine.initial_adapter(rank=4, alpha=4.0, seed=k), seed=k, size=0.02) for k in range(4)]
    alone = [read(engine, adapter, k) for k, adapter in enumerate(adapters)]
    assert len({str(some) for some in alone}) == 4
    trained_alone = engine.apply(updates(), on=adapters[0])
    before, done, rounds, errors = engine.base_sha256(), threading.Event(), [0] * 4, list[str]()

    def keep_reading(k: int) -> None:
        try:
            while not done.is_set() and not errors:
                if (found := read(engine, adapters[k], k)) != alone[k]:
                    errors.append(f"reader {k} got {found} instead of {alone[k]}")
                rounds[k] += 1
        except BaseException as error:
            errors.append(f"reader {k}: {error!r}")
            raise

    readers = [threading.Thread(target=keep_reading, args=(k,)) for k in range(4)]
    for reader in readers:
        reader.start()
    trained = []
    while not all(rounds) and not errors:
        trained.append(engine.apply(updates(), on=adapters[0]))
    done.set()
    for reader in readers:
        reader.join()
    assert not errors, errors[0]
    assert trained
    assert all(torch.equal(bank.flat, trained_alone.flat) and bank.losses == trained_alone.losses for bank in trained)
    assert torch.get_num_threads() == threads
    assert engine.base_sha256() == before
    assert not any("forward" in vars(module) for module in engine.model.modules())


def test_readers_and_a_training_get_what_each_gets_alone_on_one_thread(tiny_world_model: str) -> None:
    meanwhile(1, tiny_world_model)


def test_readers_and_a_training_get_what_each_gets_alone_on_two_threads() -> None:
    # Threads that wait busily would be slow where other programs use the cores as well.
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
    }
    command = [sys.executable, __file__, "2"]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert child.returncode == 0, child.stderr


def test_bodies_on_loan_share_tensors_but_no_modules_and_come_back(llama: TorchEngine) -> None:
    pool = BodyPool(llama.body)
    with pool.lend() as (first,), pool.lend(2) as (second, third):
        assert first is llama.body
        tensors = [dict(body.model.named_parameters()) for body in (first, second, third)]
        assert all(tensors[0][name] is other[name] for other in tensors[1:] for name in tensors[0])
        assert len({id(module) for body in (first, second, third) for module in body.model.modules()}) == 3 * len(
            list(first.model.modules())
        )
    with pool.lend() as (again,):
        assert again is first


def test_a_replica_made_while_others_compute_is_bare(llama: TorchEngine) -> None:
    pool = BodyPool(llama.body)
    path = llama.layout.targets[0].path
    with pool.lend() as (first,), AdapterContext(first.model, {}, [path]), pool.lend() as (second,):
        assert "forward" in vars(first.model.get_submodule(path))
        assert "forward" not in vars(second.model.get_submodule(path))


@pytest.fixture
def three_threads() -> Iterator[None]:
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def test_whoever_needs_all_threads_waits_for_those_who_divide_them_and_goes_before_the_next(
    three_threads: None,
) -> None:
    turns, order = ThreadTurns(), list[str]()

    def all_threads() -> None:
        with turns.at():
            order.append(f"reader with {torch.get_num_threads()}")

    with turns.divided(3) as number:
        with turns.at(number):
            reader = threading.Thread(target=all_threads)
            reader.start()
            time.sleep(0.1)
            order.append(f"worker with {torch.get_num_threads()}")
        with turns.at(number):
            order.append(f"worker with {torch.get_num_threads()}")
        reader.join()
    assert order == ["worker with 1", "reader with 3", "worker with 1"]
    assert torch.get_num_threads() == 3


def test_a_body_is_returned_where_a_call_fails(llama: TorchEngine) -> None:
    pool = BodyPool(llama.body)

    def fail() -> Body:
        with pool.lend() as (body,):
            assert body is llama.body
            raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            fail()


if __name__ == "__main__":
    meanwhile(int(sys.argv[1]), str(EMBEDDED))
