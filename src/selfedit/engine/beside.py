"""Adapters beside a frozen base: forward hooks that exist only while something is computed.

Rows of a batch belong to members in equal, consecutive groups: N rows for K members are read as (K, N/K * T, D), so
every module costs two batched products more. Nothing is wrapped or replaced; after the ``with`` block the base is bare.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError
from .lora import Bank, LoraAdapter, widths

Views = dict[str, tuple[Tensor, Tensor]]


class Beside:
    """What stands beside the base in one ``with`` block: one shared adapter (the policy) and a bank's members.

    ``members`` may be replaced inside the block (a training step binds fewer rows, decoding drops finished members).
    """

    def __init__(self, model: nn.Module, shared: Views, paths: Sequence[str]) -> None:
        self._model = model
        self._shared = shared
        self._paths = list(dict.fromkeys([*paths, *self._shared]))
        self._members: Views = {}
        self._scale = torch.zeros(0)
        self._handles: list[RemovableHandle] = []

    def bind(self, views: Views, scale: Tensor) -> None:
        """Members for the next forwards: A (K, R, D_in) and B (K, D_out, R) by path in the base's dtype, scale (K)."""
        self._members = views
        dtype = next(iter(views.values()))[0].dtype
        self._scale = scale.to(dtype)[:, None, None]

    def __enter__(self) -> Beside:
        for path in self._paths:
            module = self._model.get_submodule(path)
            self._handles.append(module.register_forward_hook(self._hook(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._members = {}

    def _hook(self, path: str) -> Any:
        shared = self._shared.get(path)

        def add(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
            x = args[0]
            if shared is not None:
                a, b = shared
                h = x.reshape(-1, x.shape[-1]) @ a.T
                y = torch.addmm(y.reshape(-1, y.shape[-1]), h, b.T).view(y.shape)
            if path in self._members:
                a, b = self._members[path]
                x3, y3 = x.reshape(len(a), -1, x.shape[-1]), y.reshape(len(a), -1, y.shape[-1])
                h = torch.bmm(x3, a.transpose(1, 2)) * self._scale
                y = torch.baddbmm(y3, h, b.transpose(1, 2)).view(y.shape)
            return y

        return add


def shared_views(adapter: LoraAdapter, model: nn.Module, device: torch.device, dtype: torch.dtype) -> Views:
    """An adapter's tensors where the base is, for `Beside`; B is scaled already.

    Raises:
        ModelError: it doesn't fit the base.
    """
    views: Views = {}
    for path, (a, b) in adapter.tensors.items():
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ModelError(
                f"the base has no module {path}: the adapter was trained on another base ({adapter.base})"
            ) from None
        if not isinstance(module, (nn.Linear, Conv1D)) or widths(module) != (a.shape[1], b.shape[0]):
            raise ModelError(
                f"{path} has other widths than the adapter's: it was trained on another base ({adapter.base})"
            )
        views[path] = (a.to(device, dtype), (b * adapter.scale).to(device, dtype))
    return views


def bank_views(bank: Bank, members: Sequence[int], dtype: torch.dtype) -> tuple[Views, Tensor]:
    """The chosen members' tensors and scales for `Beside.bind` (a copy of their rows in ``dtype``)."""
    index = torch.tensor(members, device=bank.flat.device)
    return bank.layout.views(bank.flat[index].to(dtype)), bank.scale[index]
