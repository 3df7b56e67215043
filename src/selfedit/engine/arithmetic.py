"""Sums of adapters: several as one, by adding what they add, or by TIES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import ModelError, SettingsError
from .lora import LoraAdapter

Delta = tuple[Tensor, Tensor]


def combined(adapters: Sequence[LoraAdapter], weights: Sequence[float], keep: float | None = None) -> LoraAdapter:
    """One adapter that adds ``sum_i weights[i] * scale_i B_i A_i`` to every module.

    Ranks add up, which is exact; a module whose ranks would exceed its width holds the sum itself, which is exact too. So a
    sum never needs more room than a full matrix, however many adapters it is made of. Scale 1.

    ``keep``: TIES instead (Yadav et al. 2023, arXiv 2306.01708, section 4): of each adapter's change the ``keep`` largest
    share of its entries, of those the ones with the sign that has more weight, and the mean of these; ``weights`` then
    multiply the adapters before. Every module holds the result itself.

    Raises:
        SettingsError: there are no adapters, as many weights are not given, or ``keep`` is not in (0, 1].
        ModelError: two adapters give one module different widths.
    """
    if not adapters or len(adapters) != len(weights):
        raise SettingsError(
            f"{len(adapters)} adapters with {len(weights)} weights; give one weight an adapter, at least one"
        )
    if keep is not None and not 0 < keep <= 1:
        raise SettingsError(f"keep is {keep}; give a share above 0 and at most 1")
    deltas = _by_ties(adapters, weights, keep) if keep is not None else _by_sum(adapters, weights)
    rank = max(a.shape[0] for a, _ in deltas.values())
    tensors = {path: _padded(delta, rank) for path, delta in deltas.items()}
    names = tuple(sorted({name for adapter in adapters for name in adapter.target_modules}))
    return replace(adapters[0], tensors=tensors, rank=rank, alpha=float(rank), target_modules=names)


def apart(adapter: LoraAdapter, others: Sequence[LoraAdapter]) -> LoraAdapter:
    """The adapter without what it reads of the inputs that ``others`` read (O-LoRA's subspaces, arXiv 2310.14152).

    The rows of each A are projected onto the complement of the rows of the others' A: inputs inside those subspaces then
    pass as if the adapter were not there.
    """
    tensors = {}
    for path, (a, b) in adapter.tensors.items():
        rows = [other.tensors[path][0] for other in others if path in other.tensors]
        if rows:
            taken = torch.cat(rows).double()
            _, sizes, basis = torch.linalg.svd(taken, full_matrices=False)
            basis = basis[sizes > 1e-6 * sizes.max().clamp(min=1e-30)]
            tensors[path] = ((a.double() - a.double() @ basis.T @ basis).float(), b)
        else:
            tensors[path] = (a, b)
    return replace(adapter, tensors=tensors)


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


def _by_sum(adapters: Sequence[LoraAdapter], weights: Sequence[float]) -> dict[str, Delta]:
    return {path: _added(parts) for path, parts in _parts(adapters, weights).items()}


def _added(parts: Sequence[Delta]) -> Delta:
    a, b = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
    return (a, b) if a.shape[0] < min(a.shape[1], b.shape[0]) else _as_is(b @ a)


def _as_is(delta: Tensor) -> Delta:
    """A whole change (D_out, D_in) as (A, B), one of them the identity."""
    d_out, d_in = delta.shape
    return (torch.eye(d_in), delta) if d_in <= d_out else (delta, torch.eye(d_out))


def _by_ties(adapters: Sequence[LoraAdapter], weights: Sequence[float], keep: float) -> dict[str, Delta]:
    limits = [_limit(adapter, keep) for adapter in adapters]
    found: dict[str, Delta] = {}
    for path in _parts(adapters, weights):
        sums: list[Tensor] = []
        for adapter, weight, limit in zip(adapters, weights, limits, strict=True):
            if path in adapter.tensors:
                a, b = adapter.tensors[path]
                delta = adapter.scale * (b @ a)
                sums.append(weight * torch.where(delta.abs() >= limit, delta, torch.zeros(())))
        trimmed = torch.stack(sums)
        elected = torch.sign(trimmed.sum(0))
        agrees = (torch.sign(trimmed) == elected) & (trimmed != 0)
        total = torch.where(agrees, trimmed, torch.zeros(())).sum(0)
        found[path] = _as_is(total / agrees.sum(0).clamp(min=1))
    return found


def _limit(adapter: LoraAdapter, keep: float) -> float:
    """The size that the ``keep`` largest share of an adapter's entries, over all its modules, reach."""
    sizes = torch.cat([(adapter.scale * (b @ a)).abs().flatten() for a, b in adapter.tensors.values()])
    n = max(1, round(keep * sizes.numel()))
    return float(sizes.kthvalue(sizes.numel() - n + 1).values)


def _padded(delta: Delta, rank: int) -> Delta:
    a, b = delta
    lacks = rank - a.shape[0]
    if not lacks:
        return a.contiguous(), b.contiguous()
    return torch.cat([a, a.new_zeros(lacks, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], lacks)], dim=1)
