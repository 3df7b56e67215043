"""Adapters beside a frozen base: every adapted module computes base, policy and members as one operation.

Rows of a batch belong to members in equal, consecutive groups: N rows for K members are read as (K, N/K * T, D), so
every module costs two batched products more. The modules' own ``forward`` is covered only inside a ``with`` block; no
tensor of the base is touched, and after it the base is bare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError
from .lora import Bank, LoraAdapter, widths
from .targets import computes_plainly

Views = dict[str, tuple[Tensor, Tensor]]


@dataclass
class _Members:
    """What a module's product needs of the bank: A (K, R, D_in), B (K, D_out, R) and scale (K, 1, 1) in the base's dtype.

    ``grads`` are where their gradients go (fp32 views of the bank's rows), None where nobody trains. ``written`` are the
    modules that have put theirs there in this step.
    """

    views: Views
    scale: Tensor
    grads: Views | None = None
    written: set[str] = field(default_factory=set)

    def settle(self) -> set[str]:
        """After a backward pass: the gradients of modules that the forward did not use are 0. Returns those that it did."""
        for path, places in (self.grads or {}).items():
            if path not in self.written:
                for place in places:
                    place.zero_()
        used = set(self.written)
        self.written.clear()
        return used


class _Product(torch.autograd.Function):
    """``y = W x + bias + B_policy A_policy x + scale_k B_k A_k x``, with few passes over memory and no copies of gradients.

    Autograd on its own would copy ``y`` and its gradient for every term, and every adapter gradient once more. Without a
    module (one that computes ``W x + bias`` in its own way) it is the rest of the sum.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor | None,
        module: nn.Module | None,
        path: str,
        shared: tuple[Tensor, Tensor] | None,
        bank: _Members,
    ) -> Tensor:
        """``anchor`` requires a gradient where members train, so that the first modules of the base are in the graph.

        Its own gradient is 0 and comes after those of all modules that lead to the loss: `_Rows` waits for that.
        """
        rows = x.reshape(-1, x.shape[-1])
        if module is None:
            y = rows.new_zeros(len(rows), shared[1].shape[0] if shared else bank.views[path][1].shape[1])
        else:
            weight, bias = cast(Tensor, module.weight), cast(Tensor, module.bias)
            y = torch.addmm(bias, rows, weight) if isinstance(module, Conv1D) else F.linear(rows, weight, bias)
        if shared is not None:
            y.addmm_(rows @ shared[0].T, shared[1].T)
        hidden = None
        if path in bank.views:
            a, b = bank.views[path]
            hidden = torch.bmm(rows.view(len(a), -1, rows.shape[-1]), a.mT).mul_(bank.scale)
            y.view(len(a), -1, y.shape[-1]).baddbmm_(hidden, b.mT)
        ctx.save_for_backward(rows, hidden)
        ctx.module, ctx.path, ctx.shared, ctx.bank, ctx.shape = module, path, shared, bank, x.shape
        ctx.leads_to_rows = anchor is not None and not anchor.is_leaf
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        rows, hidden = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1])
        dx = None
        if ctx.needs_input_grad[0]:
            if ctx.module is None:
                dx = torch.zeros_like(rows)
            else:
                dx = dy @ (ctx.module.weight.T if isinstance(ctx.module, Conv1D) else ctx.module.weight)
            if ctx.shared is not None:
                dx.addmm_(dy @ ctx.shared[1], ctx.shared[0])
        if hidden is not None:
            a, b = ctx.bank.views[ctx.path]
            dy, rows = dy.view(len(a), -1, dy.shape[-1]), rows.view(len(a), -1, rows.shape[-1])
            dhidden = torch.bmm(dy, b).mul_(ctx.bank.scale)
            _store(ctx.bank, ctx.path, torch.bmm(dhidden.mT, rows), torch.bmm(dy.mT, hidden))
            if dx is not None:
                dx.view(rows.shape).baddbmm_(dhidden, a)
        zero = dy.new_zeros((), dtype=torch.float32) if ctx.leads_to_rows else None
        return None if dx is None else dx.view(ctx.shape), zero, None, None, None, None


class _Rows(torch.autograd.Function):
    """A bank's rows (K, width) as the source of a graph: their gradient is what the modules gathered in ``grads``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, members: _Members, grads: Tensor) -> Tensor:
        ctx.members, ctx.grads = members, grads
        return rows.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _zero: Tensor) -> tuple[Tensor, None, None]:
        ctx.members.settle()
        # A copy: autograd may keep what it is given, and a second backward through a kept graph writes here again.
        return ctx.grads.clone(), None, None


def _store(bank: _Members, path: str, *grads: Tensor) -> None:
    """Put gradients into their places; a module that a forward uses twice adds."""
    if bank.grads is None:
        return
    for place, grad in zip(bank.grads[path], grads, strict=True):
        if path in bank.written:
            place.add_(grad)
        else:
            place.copy_(grad)
    bank.written.add(path)


class Beside:
    """What stands beside the base in one ``with`` block: one shared adapter (the policy) and a bank's members.

    ``members`` may be replaced inside the block (a training step binds fewer rows, decoding drops finished members).
    """

    def __init__(self, model: nn.Module, shared: Views, paths: Sequence[str]) -> None:
        self._model = model
        self._shared = shared
        self._paths = list(dict.fromkeys([*paths, *self._shared]))
        self._members = _Members({}, torch.zeros(0))
        self._anchor: Tensor | None = None
        self._covered: list[str] = []
        self._replaced: dict[str, Any] = {}

    def bind(self, views: Views, scale: Tensor, grads: Views | None = None) -> None:
        """Members for the next forwards: A (K, R, D_in) and B (K, D_out, R) by path in the base's dtype, scale (K).

        With ``grads`` (fp32, the same shapes) a backward pass writes the members' gradients there.
        """
        dtype = next(iter(views.values()))[0].dtype
        self._members = _Members(views, scale.to(dtype)[:, None, None], grads)
        self._anchor = None if grads is None else torch.zeros((), requires_grad=True)

    def bind_differentiable(self, bank: Bank, dtype: torch.dtype) -> None:
        """All members for the next forwards; a backward pass through them ends in ``bank.flat``, which requires gradients."""
        grads = torch.empty_like(bank.flat, requires_grad=False)
        self.bind(bank.layout.views(bank.flat.detach().to(dtype)), bank.scale, bank.layout.views(grads))
        self._anchor = cast(Tensor, _Rows.apply(bank.flat, self._members, grads))

    def settle_gradients(self) -> set[str]:
        """After a backward pass: the gradients of modules that the forward did not use are 0. Returns those that it did."""
        return self._members.settle()

    def __enter__(self) -> Beside:
        try:
            for path in self._paths:
                module = self._model.get_submodule(path)
                if "forward" in module.__dict__:  # somebody else's
                    self._replaced[path] = module.__dict__["forward"]
                module.forward = self._forward(module, path)
                self._covered.append(path)
        except BaseException:  # Ctrl-C here would leave the base covered
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._covered:
            module = self._model.get_submodule(path)
            module.__dict__.pop("forward", None)
            if path in self._replaced:
                module.forward = self._replaced.pop(path)
        self._covered.clear()
        self._members = _Members({}, torch.zeros(0))

    def _forward(self, module: nn.Module, path: str) -> Callable[[Tensor], Tensor]:
        shared = self._shared.get(path)
        plain, own = computes_plainly(module), module.forward

        def forward(x: Tensor) -> Tensor:
            adapted = path in self._members.views
            anchor = self._anchor if adapted else None
            if plain:
                return _Product.apply(x, anchor, module, path, shared, self._members)  # type: ignore[no-any-return]
            y = own(x)
            if adapted or shared is not None:
                y = y + _Product.apply(x, anchor, None, path, shared, self._members)
            return cast(Tensor, y)

        return forward


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
