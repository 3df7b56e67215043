"""Nucleus sampling's cut (Holtzman et al. 2020, arXiv 1904.09751), for sampling and for scoring what was sampled."""

from __future__ import annotations

import torch
from torch import Tensor


def outside_nucleus(p: Tensor, top_p: float) -> Tensor:
    """Probabilities (N, V) -> bool (N, V), True for tokens outside of the smallest set whose probabilities reach ``top_p``."""
    ordered, index = p.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(outside).scatter_(-1, index, outside)
