from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import eager_attention_forward

from selfedit.engine.model.attention import attend


class Attention(torch.nn.Module):
    num_key_value_groups = 3


def inputs(seen: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 5, 6, 8), (2, seen, 2, 8), (2, seen, 2, 8))
    # As a model's projections lie in memory: heads behind tokens.
    q, k, v = (torch.randn(shape, generator=generator).to(dtype).transpose(1, 2) for shape in shapes)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("seen", [5, 9])
def test_it_equals_the_eager_attention_forward_and_backward(seen: int, dtype: torch.dtype, near: float) -> None:
    low = torch.finfo(dtype).min
    mask = torch.full((2, 1, 5, seen), low, dtype=dtype).triu(seen - 4)
    mask[1, 0, :, 0] = low
    mask[1, 0, 0, 1:] = low  # a row that sees nothing at all
    found = []
    for function in (attend, eager_attention_forward):
        q, k, v = inputs(seen, dtype)
        out, _ = function(Attention(), q, k, v, mask, 0.3)
        out.float().square().sum().backward()
        found.append((out, q.grad, k.grad, v.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=near, rtol=near)


def test_values_may_have_another_width_than_keys() -> None:
    found = []
    for function in (attend, eager_attention_forward):
        q, k, _ = inputs(5, torch.float32)
        v = torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
        out, _ = function(Attention(), q, k, v, None, 0.3)
        out.square().sum().backward()
        found.append((out, q.grad, k.grad, v.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_soft_capping_is_left_to_the_model() -> None:
    from transformers.models.gemma2 import modeling_gemma2 as gemma

    module = gemma.Gemma2RMSNorm(4)
    module.num_key_value_groups, module.head_dim = 3, 8
    q, k, v = inputs(5, torch.float32)
    ours, _ = attend(module, q, k, v, None, 0.3, softcap=0.5)
    theirs, _ = gemma.eager_attention_forward(module, q, k, v, None, scaling=0.3, softcap=0.5)
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, attend(module, q, k, v, None, 0.3)[0])
