"""Softmax attention on CPUs with few passes over memory, for every model that takes its attention from transformers' registry.

The registry's eager attention makes about a dozen passes over the scores in a training step, some of them in fp32; its fused
one (sdpa) has a bf16 backward several times slower than plain products.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "selfedit"


def register() -> str:
    """Make the attention known to transformers; returns its name, for ``attn_implementation``."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME


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

    What it does not compute itself (soft-capping, attention sinks) goes to the model's own eager attention.
    """
    if features.get("softcap") is not None or features.get("s_aux") is not None or dropout:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **features)  # type: ignore[no-any-return]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _Attention.apply(query, key, value, attention_mask, scale), None  # type: ignore[no-untyped-call]


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
