"""Sums of adapters: several as one, by adding what they add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import ModelError, SettingsError
from .lora import LoraAdapter, padded

Delta = tuple[Tensor, Tensor]


def combined(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> LoraAdapter:
    """One adapter that adds ``sum_i weights[i] * scale_i B_i A_i`` to every module.

    Ranks add up, which is exact; a module whose ranks would exceed its width holds the sum itself, which is exact too. So a
    sum never needs more room than a full matrix, however many adapters it is made of. Scale 1.

    Raises:
        SettingsError: there are no adapters, or as many weights are not given.
        ModelError: two adapters give one module different widths.
    """
    if not adapters or len(adapters) != len(weights):
        raise SettingsError(
            f"{len(adapters)} adapters with {len(weights)} weights; give at least one adapter, and one weight per adapter"
        )
    deltas = {path: _added(parts) for path, parts in _parts(adapters, weights).items()}
    rank = max(a.shape[0] for a, _ in deltas.values())
    tensors = {path: padded(*delta, rank) for path, delta in deltas.items()}
    names = tuple(sorted({name for adapter in adapters for name in adapter.target_modules or adapter.tensors}))
    transposed = any(adapter.fan_in_fan_out for adapter in adapters)
    return replace(adapters[0], tensors=tensors, rank=rank, alpha=float(rank), target_modules=names, fan_in_fan_out=transposed)


def _parts(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> dict[str, list[Delta]]:
    """By module the (A, B) of every adapter that has it, scale and weight multiplied into B."""
    parts: dict[str, list[Delta]] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for path, (a, b) in adapter.tensors.items():
            known = parts.setdefault(path, [])
            if known and (known[0][0].shape[1], known[0][1].shape[0]) != (a.shape[1], b.shape[0]):
                raise ModelError(f"the adapters give {path} different widths; combine adapters of one base")
            known.append((a, b * (weight * adapter.scale)))
    return parts


def _added(parts: Sequence[Delta]) -> Delta:
    a, b = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
    d_in, d_out = a.shape[1], b.shape[0]
    if a.shape[0] < min(d_in, d_out):
        return a, b
    # The whole change (D_out, D_in), beside an identity.
    return (torch.eye(d_in), b @ a) if d_in <= d_out else (b @ a, torch.eye(d_out))
