"""Softmax attention on CPUs with few passes over memory, for every model that takes its attention from transformers' registry.

The registry's eager attention makes about a dozen passes over the scores in a training step, some of them in fp32; its fused
one (sdpa) has a bf16 backward several times slower than plain products.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from .blocks import Blocks

NAME = "selfedit"


def register() -> str:
    """Make the attention known to transformers; returns its name, for ``attn_implementation``."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


def takes_blocks(model: PreTrainedModel) -> bool:
    """Whether this attention computes all that the model's does, so that a flat batch may be tried (`Body` proves it).

    Kinds of attention other than full and sliding ones differ on long sequences only, where a short proof would not see it.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}
    return config._attn_implementation == NAME and kinds and not getattr(config, "attention_chunk_size", None)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **features: Any,
) -> tuple[Tensor, Tensor | None]:
    """Query (N, H, T, d), key (N, G, S, d), value (N, G, S, e), additive mask (N or 1, 1, T, S) -> (N, T, H, e), no weights.

    What it does not compute itself (soft-capping, attention sinks) goes to the model's own eager attention. With ``blocks``
    (N = 1, S = T) tokens see those of their own sequence, and the mask is not looked at.
    """
    blocks: Blocks | None = features.get("blocks")
    if features.get("softcap") is not None or features.get("s_aux") is not None or dropout:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **features)  # type: ignore[no-any-return]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if blocks is not None:
        return _by_blocks(query, key, value, blocks, scale, features.get("sliding_window")), None
    return _Attention.apply(query, key, value, attention_mask, scale), None  # type: ignore[no-untyped-call]


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, blocks: Blocks, scale: float, window: int | None) -> Tensor:
    """Query (1, H, M, d), key (1, G, M, d), value (1, G, M, e) of a flat batch -> (1, M, H, e)."""
    sizes = [n * length for n, length in blocks.shapes]
    # Backwards, padding gets no gradient: of its places nothing is read, and what it repeats is no key of a real token.
    parts = [_Reordered.apply(x[0].transpose(0, 1), blocks.tokens, blocks.places, None).split(sizes) for x in (query, key, value)]  # type: ignore[no-untyped-call]
    out = []
    for (n, length), *qkv in zip(blocks.shapes, *parts, strict=True):
        q, k, v = (x.view(n, length, *x.shape[1:]).transpose(1, 2) for x in qkv)
        seen = _Attention.apply(q, k, v, blocks.mask(length, window, query), scale)  # type: ignore[no-untyped-call]
        out.append(seen.flatten(0, 1))
    together = out[0] if len(out) == 1 else torch.cat(out)
    return _Reordered.apply(together, blocks.places, blocks.tokens, blocks.real)[None]  # type: ignore[no-untyped-call,no-any-return]


class _Reordered(torch.autograd.Function):
    """Rows of ``x`` by ``index``; ``back`` is where the gradient of each row is found again, ``real`` 0 where it has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, real: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, real)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, real = ctx.saved_tensors
        found = grad.index_select(0, back)
        # Filled, not multiplied: 0 * NaN would be NaN.
        return (found if real is None else found.masked_fill_(~real, 0.0)), None, None, None


class _Attention(torch.autograd.Function):
    """``softmax(scale q k^T + mask) v``, the heads that share a key and value (grouped heads) side by side in one product."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        n, heads, length, width = query.shape
        groups, seen = key.shape[1:3]
        # One copy each, from the projections' (N, T, H, d) into rows of products; the scale comes along for nothing.
        q = torch.mul(query, scale, out=query.new_empty(query.shape)).view(n * groups, -1, width)
        k, v = key.reshape(n * groups, seen, width), value.reshape(n * groups, seen, value.shape[-1])
        scores = torch.bmm(q, k.mT)
        if mask is not None:
            scores.view(n, heads, length, seen).add_(mask)
        weights = torch.softmax(scores, -1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape, value.shape)
        return torch.bmm(weights, v).view(n, heads, length, -1).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        of_query, of_key, of_value = ctx.shapes
        grad = grad.transpose(1, 2).reshape(*q.shape[:2], -1)
        d_value = torch.bmm(weights.mT, grad)
        d_weights = torch.bmm(grad, v.mT)
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_query = torch.bmm(d_scores, k).mul_(ctx.scale)
        d_key = torch.bmm(d_scores.mT, q)
        return d_query.view(of_query), d_key.view(of_key), d_value.view(of_value), None, None
