"""Texts read into a key-value cache; what several of them begin with is read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model.body import Body
from .beginnings import Prompt, common_beginning, neighbours
from .cache import RoomyLayer, make_cache

# Texts are read in two parts, a common beginning once, where that leaves at most so much of the tokens.
_WORTHWHILE = 0.75
Groups = Sequence[tuple[range, int]]  # neighbouring rows with a common beginning, and its length in tokens


class Prefill:
    """The cache of N rows, and which of its places each of them sees."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._cache = make_cache(body.model.config)
        self._mask = torch.zeros(0)

    def groups(self, prompts: Sequence[Prompt], texts: Sequence[Prompt], slots: int | None, room: int = 0) -> Groups | None:
        """Neighbours whose prompts begin alike. Each of ``texts`` begins with its prompt; ``room`` more tokens may follow it.

        ``slots``: every member of a bank has so many rows, which are its group; None: any rows may be one. None where sharing
        saves little, or the model can't go on behind padding: its windows, states or positions would count it.
        """
        if slots is None:
            found = neighbours(prompts)
        else:
            starts = range(0, len(prompts), slots)
            found = [(range(at, at + slots), common_beginning(prompts[at : at + slots])) for at in starts]
        if not all(n for _, n in found):
            return None
        longest = max(n for _, n in found)
        rest = max(len(texts[i]) - n for group, n in found for i in group)
        if len(found) * longest + len(texts) * rest > _WORTHWHILE * len(texts) * max(map(len, texts)):
            return None
        ends = longest + rest + room
        sees_all = all(
            type(layer) is RoomyLayer or ends < (getattr(layer, "sliding_window", None) or 0) for layer in self._cache.layers
        )
        return found if sees_all and self._body.half_cost is not None else None

    def begin(self, texts: Sequence[Prompt], groups: Groups | None) -> Tensor:
        """Read the rows' first texts. Returns hidden states (N, T, D) of what was read of each row alone, at its right end."""
        self._mask = torch.zeros(len(texts if groups is None else groups), 0, dtype=torch.long, device=self._body.device)
        if groups is None:
            return self._read(texts, [0] * len(texts))
        self._read([texts[group[0]][:n] for group, n in groups], [0] * len(groups))
        self.keep(torch.tensor([g for g, (group, _) in enumerate(groups) for _ in group], device=self._body.device))
        lengths = [n for group, n in groups for _ in group]
        return self._read([text[n:] for text, n in zip(texts, lengths, strict=True)], lengths)

    def more(self, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """One more token of every row, each at its place in the row. Returns hidden states (N, D)."""
        ids, positions = (torch.tensor(some, device=self._body.device)[:, None] for some in (tokens, places))
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        return self._body.hidden(ids, positions, self._mask, self._cache)[:, -1]

    def keep(self, index: Tensor) -> None:
        """Go on with these rows, in this order; a row may come again."""
        # The one way of selecting that every kind of layer has, those of linear attention and state spaces too.
        self._cache.reorder_cache(index)
        self._mask = self._mask[index]

    def _read(self, texts: Sequence[Sequence[int]], after: Sequence[int]) -> Tensor:
        """Run texts, left-padded, each after so many tokens of its row. Returns hidden states (N, T, D)."""
        length = max(map(len, texts))
        ids, mask = torch.zeros(2, len(texts), length, dtype=torch.long)
        for i, text in enumerate(texts):
            ids[i, length - len(text) :] = torch.tensor(text)
            mask[i, length - len(text) :] = 1
        positions = torch.tensor(after)[:, None] + (mask.cumsum(1) - 1).clamp_(min=0)
        ids, mask, positions = (t.to(self._body.device) for t in (ids, mask, positions))
        self._mask = torch.cat([self._mask, mask], 1)
        return self._body.hidden(ids, positions, self._mask, self._cache)
