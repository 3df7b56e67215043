"""Updates and prompts for the engine's tests."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from selfedit.engine.adapters.adapter_context import AdapterContext, shared_views
from selfedit.engine.adapters.lora import LoraAdapter
from selfedit.engine.torch_engine import TorchEngine
from selfedit.types import TrainSequence, Update


def sequence(rng: random.Random, length: int, masked: int = 0) -> TrainSequence:
    ids = tuple(rng.randrange(4, 260) for _ in range(length))
    return TrainSequence(ids, tuple(t >= masked for t in range(length)))


def update(seed: int, **changes: object) -> Update:
    """Five short sequences and one long one, some with their beginning masked."""
    rng = random.Random(seed)
    sequences = [sequence(rng, rng.randint(4, 11), masked=rng.choice([0, 3])) for _ in range(5)] + [sequence(rng, 30)]
    plain = Update(tuple(sequences), steps=6, batch_size=2, lr=1e-3, rank=4, alpha=8.0, seed=seed)
    return replace(plain, **changes)  # type: ignore[arg-type]


def mixed_updates() -> list[Update]:
    """Members that differ in everything an update has."""
    return [
        update(1),
        update(2, rank=7, alpha=5.0, steps=9, batch_size=3, lr=7e-4, schedule="constant"),
        update(3, steps=4, batch_size=1, weight_decay=0.1, max_grad_norm=0.05),
        update(4, rank=1, alpha=16.0, batch_size=50, lr=3e-4, weight_decay=0.3, max_grad_norm=1e9),
    ]


def prompts(seed: int, lengths: tuple[int, ...]) -> list[list[int]]:
    rng = random.Random(seed)
    return [[1, *(rng.randrange(4, 260) for _ in range(length - 1))] for length in lengths]


def strong(adapter: LoraAdapter, seed: int = 0, size: float = 0.3) -> LoraAdapter:
    """The adapter with random B: one that visibly changes what the model writes."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {path: (a, size * torch.randn(b.shape, generator=generator)) for path, (a, b) in sorted(adapter.tensors.items())}
    return replace(adapter, tensors=tensors)


def beside(engine: TorchEngine, adapter: LoraAdapter | None) -> AdapterContext:
    """The engine's own model under an adapter, for forwards of the test's own inside a ``with`` block."""
    model, body = engine.model, engine.body
    return AdapterContext(model, shared_views(adapter, model, body.device, body.dtype) if adapter else {}, [])
