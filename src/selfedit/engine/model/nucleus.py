"""What a token is sampled from, exactly: probabilities in fixed point, and the nucleus (Holtzman et al. 2020, arXiv 1904.09751).

For sampling and for scoring what was sampled, so that both cut at the same token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_USUAL_NUCLEUS = 1024  # tokens: most nuclei are smaller, and finding so many is much less work than sorting all
_ONE = 2.0**62  # the probability 1; what is rounded down adds up to hardly more, far below int64's 2**63


def fixed_point(logits: Tensor, temperature: float) -> Tensor:
    """Logits (N, V) -> int64 weights (N, V): probabilities as multiples of 2**-62, rounded down; 0 where logits are NaN."""
    return torch.softmax(logits.double() / temperature, -1).nan_to_num_(0.0).mul_(_ONE).long()


def keep_nucleus(weights: Tensor, top_p: float) -> None:
    """Set all ``weights`` (N, V) to 0 but the fewest that reach ``top_p`` of a row's sum; of equal ones the first are kept."""
    reach = (weights.sum(-1, keepdim=True).double() * top_p).ceil().long()  # at least 1, so at least one token is kept
    largest = weights.topk(min(_USUAL_NUCLEUS, weights.shape[-1])).values
    if (largest.sum(-1, keepdim=True) < reach).any():
        largest = weights.sort(dim=-1, descending=True).values
    before = largest.cumsum(-1) - largest
    least = largest.gather(-1, (before < reach).sum(-1, keepdim=True).sub(1).clamp_(min=0))
    same = weights == least
    # So many of the equal ones still fit, the first of them.
    fitting = ((before < reach) & (largest == least)).sum(-1, keepdim=True)
    weights.masked_fill_((weights < least) | same & (same.cumsum(-1) > fitting), 0)


def within(logits: Tensor, allowed: Sequence[Sequence[int]]) -> Tensor:
    """Logits (N, V) with those of other tokens at minus infinity; a row without allowed tokens stays as it is."""
    rows = [i for i, some in enumerate(allowed) for _ in some]
    columns = [token for some in allowed for token in some]
    keep = torch.tensor([not some for some in allowed], device=logits.device)[:, None].repeat(1, logits.shape[-1])
    keep[rows, columns] = True
    return logits.masked_fill(~keep, -torch.inf)


def draw(weights: Tensor, uniforms: Sequence[Tensor]) -> tuple[list[int], list[float]]:
    """A token and its log-probability (nats) for each row of ``weights`` (N, V) and each of N numbers in [0, 1).

    Inverse CDF in the vocabulary's order: a difference in rounding moves a boundary a little, it never reorders tokens.
    Weights are integers, which add up exactly in any order, as torch's deterministic mode asks for on CUDA. Where all are 0
    (the logits were NaN) it is the last token, at a log-probability of NaN.
    """
    cumulated = weights.cumsum(-1)
    mass = cumulated[:, -1:]
    at = (torch.stack(list(uniforms)).to(mass.device)[:, None] * mass).long()
    tokens = torch.searchsorted(cumulated, at, right=True).clamp_(max=weights.shape[-1] - 1)
    return tokens[:, 0].tolist(), (weights.gather(-1, tokens).double() / mass).log()[:, 0].tolist()
