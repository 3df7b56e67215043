"""Which tokens of a flat batch see each other: sequences behind each other, gathered into blocks of about equal length.

The linear modules need no padding at all; only inside the attention are the sequences of a block padded to its longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

_SHORTEST = 0.5  # of a block's longest sequence: shorter ones go into the next block
_SMALL = 32  # tokens; sequences this short are not worth another block


@dataclass(frozen=True)
class Blocks:
    """B blocks of S_b sequences, padded to T_b tokens each: P = sum of S_b * T_b places for the flat batch's M tokens.

    ``shapes`` are (S_b, T_b); ``tokens`` (P) is the token of each place, padding (behind a sequence) repeats its last one;
    ``places`` (M) is the place of each token; ``real`` (P, 1, 1) is 0 for padding.
    """

    shapes: list[tuple[int, int]]
    tokens: Tensor
    places: Tensor
    real: Tensor
    _masks: dict[tuple[int, int, torch.dtype], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Blocks:
        """For sequences of these lengths, one behind the other."""
        starts = [end - n for end, n in zip(accumulate(lengths), lengths, strict=True)]
        waiting = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        shapes: list[tuple[int, int]] = []
        tokens: list[Tensor] = []
        while waiting:
            longest = lengths[waiting[0]]
            least = 0 if longest <= _SMALL else _SHORTEST * longest
            block = [i for i in waiting if lengths[i] >= least]
            waiting = waiting[len(block) :]
            shapes.append((len(block), longest))
            first, last = (torch.tensor(x)[:, None] for x in ([starts[i] for i in block], [lengths[i] - 1 for i in block]))
            tokens.append((first + torch.arange(longest).minimum(last)).flatten())
        of_place = torch.cat(tokens)
        real = torch.ones(len(of_place), dtype=torch.bool)
        real[1:] = of_place[1:] != of_place[:-1]
        places = torch.empty(sum(lengths), dtype=torch.long)
        places[of_place[real]] = real.nonzero()[:, 0]
        return cls(shapes, of_place.to(device), places.to(device), real.to(device)[:, None, None])

    def mask(self, length: int, window: int | None, like: Tensor) -> Tensor:
        """Additive causal mask (1, 1, T, T) in ``like``'s dtype; a token sees the last ``window`` ones, itself included."""
        key = (length, window or 0, like.dtype)
        if key not in self._masks:
            hidden = torch.full((length, length), torch.finfo(like.dtype).min, dtype=like.dtype, device=like.device)
            seen = hidden.triu(1)
            if window and window < length:
                seen += hidden.tril(-window)
            self._masks[key] = seen[None, None]
        return self._masks[key]
