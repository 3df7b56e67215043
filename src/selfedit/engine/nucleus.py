"""What a token is sampled from, exactly: probabilities in fixed point, and the nucleus (Holtzman et al. 2020, arXiv 1904.09751).

For sampling and for scoring what was sampled, so that both cut at the same token.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ONE = 2.0**62  # the probability 1; what is rounded down adds up to hardly more, far below int64's 2**63


def fixed_point(logits: Tensor, temperature: float) -> Tensor:
    """Logits (N, V) -> int64 weights (N, V): probabilities as multiples of 2**-62, rounded down; 0 where logits are NaN."""
    return torch.softmax(logits.double() / temperature, -1).nan_to_num_(0.0).mul_(_ONE).long()


def keep_nucleus(weights: Tensor, top_p: float) -> None:
    """Set all ``weights`` (N, V) to 0 but the fewest that reach ``top_p`` of a row's sum; of equal ones the first are kept."""
    ordered, index = weights.sort(dim=-1, descending=True, stable=True)
    cumulated = ordered.cumsum(-1)
    reach = (cumulated[:, -1:].double() * top_p).ceil().long()  # at least 1, so at least one token is kept
    before = cumulated - ordered
    weights.scatter_(-1, index, ordered.masked_fill(before >= reach, 0))
