"""Documents as rows of tokens: branches that see their prefix and themselves, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .documents import Document

_WORD = re.compile(r"\s*\S+|\s+$")


@dataclass
class Batch:
    """Rows of packed documents. ids, positions, labels: (B, T) int64; weights: (B, T); visible: (B, T, T) bool."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    visible: Tensor

    def to(self, device: str) -> Batch:
        """The same batch on ``device``."""
        return Batch(*(t.to(device) for t in vars(self).values()))


class Packer:
    """Turns documents into rows of a fixed width, as many to a row as fit."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.bos, self.eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)  # type: ignore[arg-type]
        self._encode = tokenizer.backend_tokenizer.encode
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens. Word by word, remembered: no token of the world spans two words."""
        ids: list[int] = []
        for word in _WORD.findall(text):
            if word not in self._known:
                self._known[word] = self._encode(word, add_special_tokens=False).ids
            ids += self._known[word]
        return ids

    def segments(self, doc: Document) -> list[tuple[list[int], list[float]]]:
        """Token ids and loss weights of the prefix (may be empty) and of each branch; labels are the next token."""
        prefix = [self.bos, *self.encode(doc.prefix)] if doc.prefix else []
        out: list[tuple[list[int], list[float]]] = [(prefix, [0.0] + [0.1] * (len(prefix) - 1) if prefix else [])]
        for branch in doc.branches:
            ids: list[int] = [] if doc.prefix else [self.bos]
            weights: list[float] = [0.0] * len(ids)
            for text, weight in branch:
                part = self.encode(text)
                ids += part
                weights += [weight] * len(part)
            out.append(([*ids, self.eos], [*weights, weights[-1]]))
        return out

    def batch(self, rows: int, width: int, draw: Callable[[], Document]) -> Batch:
        """``rows`` rows of ``width`` tokens filled with drawn documents."""
        shape = (rows, width)
        batch = Batch(
            torch.zeros(shape, dtype=torch.long),
            torch.zeros(shape, dtype=torch.long),
            torch.zeros(shape, dtype=torch.long),
            torch.zeros(shape),
            torch.zeros(rows, width, width, dtype=torch.bool),
        )
        causal = torch.tril(torch.ones(width, width, dtype=torch.bool))
        for row in range(rows):
            owner, segment = torch.full((width,), -1), torch.full((width,), -1)
            for doc, (number, offset, at, (ids, weights)) in self._placed(width, draw):
                batch.ids[row, at] = torch.tensor(ids)
                batch.positions[row, at] = torch.arange(offset, offset + len(ids))
                predicted = slice(at.start, at.stop - 1)
                batch.labels[row, predicted] = torch.tensor(ids[1:])
                batch.weights[row, predicted] = torch.tensor(weights[1:])
                owner[at], segment[at] = doc, number
            same = (segment[:, None] == segment[None, :]) | (segment[None, :] == 0)
            batch.visible[row] = (owner[:, None] == owner[None, :]) & same & causal
            batch.visible[row].fill_diagonal_(True)
        return batch

    def _placed(
        self, width: int, draw: Callable[[], Document]
    ) -> Iterator[tuple[int, tuple[int, int, slice, tuple[list[int], list[float]]]]]:
        """The segments of one row: document number, (segment number, first position, place, (ids, weights)).

        A document whose prefix does not fit is left out whole, as its branches would ask about nothing; branches that do not fit
        are left out. Three documents in a row that do not fit end the row.
        """
        used = doc = misses = 0
        while misses < 3 or not used:
            (prefix, prefix_weights), *branches = self.segments(draw())
            shortest = min(len(ids) for ids, _ in branches)
            if used + len(prefix) + shortest > width:
                misses += 1
                continue
            if prefix:
                yield doc, (0, 0, slice(used, used + len(prefix)), (prefix, prefix_weights))
                used += len(prefix)
            for number, (ids, weights) in enumerate(branches, start=1):
                if used + len(ids) <= width:
                    yield doc, (number, len(prefix), slice(used, used + len(ids)), (ids, weights))
                    used += len(ids)
            doc += 1
