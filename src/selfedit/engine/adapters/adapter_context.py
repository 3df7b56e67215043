"""Adapters beside a frozen base: every adapted module computes base, policy and members as one operation.

Tokens of a batch belong to members in consecutive groups. Where these are equal, a module costs two batched products more;
where they are not (`packing.lay_flat`), two products more for each member. The modules' own ``forward`` is replaced only inside
a ``with`` block; no tensor of the base is touched, and after it the base is bare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ...errors import ModelError
from ..model.body_pool import replace_forward
from .lora import Bank, LoraAdapter, widths
from .targets import computes_plainly

Views = dict[str, tuple[Tensor, Tensor]]
# Where models of mixtures keep, or kept, their experts and routers.
_OF_EXPERTS = re.compile(r"\.(experts?|shared_experts?|block_sparse_moe|moe|router|gate)(\.|$)")


@dataclass
class _Members:
    """What a module's product needs of the bank: A (K, R, D_in), B (K, D_out, R) and scale (K, 1, 1) in the base's dtype.

    ``grads`` are where their gradients go (fp32 views of the bank's rows), None where nobody trains. ``written`` are the
    modules that have put theirs there in this step. ``spans``: the members' tokens in order; None: all have as many.
    """

    views: Views
    scale: Tensor
    grads: Views | None = None
    written: set[str] = field(default_factory=set)
    spans: list[int] | None = None

    @cached_property
    def scales(self) -> list[float]:
        """Each member's scale."""
        return self.scale.flatten().tolist()  # type: ignore[no-any-return]

    def add_to(self, y: Tensor, rows: Tensor, path: str) -> Tensor:
        """Add ``scale_k B_k A_k x`` to ``y`` (M, D_out) for ``rows`` (M, D_in); returns ``scale_k A_k x`` (M, R)."""
        a, b = self.views[path]
        if self.spans is None:
            hidden = torch.bmm(rows.view(len(a), -1, rows.shape[-1]), a.mT).mul_(self.scale)
            y.view(len(a), -1, y.shape[-1]).baddbmm_(hidden, b.mT)
            return hidden.flatten(0, 1)
        hidden = rows.new_empty(len(rows), a.shape[1])
        of_members = (tensor.split(self.spans) for tensor in (rows, hidden, y))
        for a_k, b_k, scale, x, h, out in zip(a, b, self.scales, *of_members, strict=True):
            torch.addmm(h, x, a_k.T, beta=0, alpha=scale, out=h)
            out.addmm_(h, b_k.T)
        return hidden

    def backward(self, path: str, spans: list[int] | None, rows: Tensor, hidden: Tensor, dy: Tensor, dx: Tensor | None) -> None:
        """From ``dy`` (M, D_out): add to ``dx`` (M, D_in) what comes through the members, and put their gradients into place."""
        a, b = self.views[path]
        if spans is None:
            rows, hidden, dy = (tensor.view(len(a), -1, tensor.shape[-1]) for tensor in (rows, hidden, dy))
            dhidden = torch.bmm(dy, b).mul_(self.scale)
            for place, *factors in zip(self._places(path), (dhidden.mT, dy.mT), (rows, hidden), strict=False):
                _put(place, torch.bmm, *factors, again=path in self.written)
            if dx is not None:
                dx.view(rows.shape).baddbmm_(dhidden, a)
        else:
            places = self._places(path) or ([None] * len(a), [None] * len(a))
            of_members = (tensor.split(spans) for tensor in (rows, hidden, dy))
            dxs = [None] * len(a) if dx is None else dx.split(spans)
            for a_k, b_k, scale, dx_k, to_a, to_b, x, h, dy_k in zip(a, b, self.scales, dxs, *places, *of_members, strict=True):
                dhidden = torch.mm(dy_k, b_k).mul_(scale)
                for place, *factors in ((to_a, dhidden.T, x), (to_b, dy_k.T, h)):
                    if place is not None:
                        _put(place, torch.mm, *factors, again=path in self.written)
                if dx_k is not None:
                    dx_k.addmm_(dhidden, a_k)
        self.written.add(path)

    def _places(self, path: str) -> tuple[Any, ...]:
        """Where a module's gradients go; nowhere where nobody trains."""
        return () if self.grads is None else self.grads[path]

    def settle(self) -> None:
        """After a backward pass: the gradients of modules that the forward did not use are 0."""
        for path, places in (self.grads or {}).items():
            if path not in self.written:
                for place in places:
                    place.zero_()
        self.written.clear()


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
            hidden = bank.add_to(y, rows, path)
        ctx.save_for_backward(rows, hidden)
        ctx.spans = bank.spans
        ctx.module, ctx.path, ctx.shared, ctx.bank, ctx.shape = module, path, shared, bank, x.shape
        ctx.leads_to_rows = anchor is not None and not anchor.is_leaf
        # Not a view to autograd, which refuses to let a model add to one in place, as Llama 4 does; ``y`` is used nowhere else.
        return cast(Tensor, torch.ops.aten._unsafe_view(y, [*x.shape[:-1], y.shape[-1]]))

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
            ctx.bank.backward(ctx.path, ctx.spans, rows, hidden, dy, dx)
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


def _put(place: Tensor, product: Callable[..., Tensor], left: Tensor, right: Tensor, *, again: bool) -> None:
    """Put a product into its place; a module that a forward uses twice adds."""
    if again:
        place.add_(product(left, right))
    elif place.dtype == left.dtype and place.is_contiguous():
        product(left, right, out=place)
    else:
        place.copy_(product(left, right))


class AdapterContext:
    """The adapters of one ``with`` block: one shared adapter (such as the policy) and a bank's members.

    ``members`` may be replaced inside the block (a training step binds fewer rows, decoding drops finished members).
    """

    def __init__(self, model: nn.Module, shared: Views, paths: Sequence[str]) -> None:
        self._model = model
        self._shared = shared
        self._paths = list(dict.fromkeys([*paths, *self._shared]))
        self._members = _Members({}, torch.zeros(0))
        self._anchor: Tensor | None = None
        self._undo = ExitStack()

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

    def arrange(self, spans: Sequence[int] | None) -> None:
        """How many tokens of the next forwards each bound member has, in their order; None: all the same number."""
        self._members.spans = list(spans) if spans is not None and len(set(spans)) > 1 else None

    def settle_gradients(self) -> None:
        """After a backward pass: the gradients of modules that the forward did not use are 0."""
        self._members.settle()

    def __enter__(self) -> AdapterContext:
        with ExitStack() as undo:  # Ctrl-C in here leaves the base bare
            for path in self._paths:
                module = self._model.get_submodule(path)
                undo.callback(replace_forward(module, self._forward(module, path)))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._undo.close()
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
    """An adapter's tensors where the base is, for `AdapterContext`; B is scaled already.

    Raises:
        ModelError: it doesn't fit the base.
    """
    views: Views = {}
    for path, (a, b) in adapter.tensors.items():
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ModelError(_absent(path, adapter.base)) from None
        if not isinstance(module, (nn.Linear, Conv1D)):
            raise ModelError(
                f"{path} ({type(module).__name__}) is no linear module, and adapters can be added to those only; train the "
                "adapter without it, or merge it with PEFT and use the result as the base"
            )
        if widths(module) != (a.shape[1], b.shape[0]):
            raise ModelError(f"{path} has other widths than the adapter's: it was trained on another base ({adapter.base})")
        views[path] = (a.to(device, dtype), (b * adapter.scale).to(device, dtype))
    return views


def _absent(path: str, base: str) -> str:
    """Why the base has no such module."""
    if _OF_EXPERTS.search(path):
        return (
            f"the base has no module {path}: transformers 5 keeps a layer's experts, and what chooses among them, as tensors, "
            "and adapters can be added to linear modules only; train the adapter without them (the attention's modules, say), or "
            "merge it with PEFT and use the result as the base"
        )
    return f"the base has no module {path}: the adapter was trained on another base ({base})"


def refuse_transposed(adapter: LoraAdapter, model: nn.Module) -> None:
    """An adapter that takes weights for (D_out, D_in), as PEFT's ``target_parameters`` do, is another one on a ``Conv1D``.

    Raises:
        ModelError: it is, which its widths don't show where the module is square.
    """
    transposed = [path for path in adapter.tensors if isinstance(model.get_submodule(path), Conv1D)]
    if transposed and not adapter.fan_in_fan_out:
        raise ModelError(
            f"{transposed[0]} keeps its weight transposed, and the adapter says fan_in_fan_out = false; train it by "
            "target_modules, or, if it was, set fan_in_fan_out to true in adapter_config.json"
        )


def bank_views(bank: Bank, members: Sequence[int], dtype: torch.dtype) -> tuple[Views, Tensor]:
    """The chosen members' tensors and scales for `AdapterContext.bind` (a copy of their rows in ``dtype``)."""
    index = torch.tensor(members, device=bank.flat.device)
    return bank.layout.views(bank.flat[index].to(dtype)), bank.scale[index]
