"""Batched decoding with a key-value cache: greedy answers and seeded samples, a member for each row.

A row's text depends on its own prompt, seed and member. What its neighbours change is the rounding of the arithmetic (a
batch's shape picks the kernels): in fp32 about one token in a million could flip, in bf16 visibly more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import ModelError, SettingsError
from ..adapters.adapter_context import AdapterContext, bank_views
from ..adapters.lora import Bank
from ..model.body import Body
from ..model.nucleus import draw, fixed_point, keep_nucleus
from .choices import Guide
from .prefill import Prefill

Ids = Sequence[int]


@dataclass
class Row:
    """One text being decoded. ``uniforms`` (max_new_tokens) are all of its random numbers, drawn before it starts.

    ``guide``: what may be written, of a constrained choice.
    """

    member: int
    prompt: tuple[int, ...]
    limit: int
    uniforms: Tensor | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    guide: Guide | None = None

    @property
    def done(self) -> bool:
        """Nothing more will be written."""
        return self.finished or len(self.tokens) >= self.limit

    @property
    def uniform(self) -> Tensor:
        """The random number of the next token; any of them where nothing more will be written."""
        assert self.uniforms is not None
        return self.uniforms[0 if self.done else len(self.tokens)]


# logits (N, V) and the rows they belong to -> token and log-probability of each row
Choose = Callable[[Tensor, Sequence[Row]], tuple[list[int], list[float]]]


def make_row(body: Body, member: int, prompt: Ids, max_new_tokens: int, seed: int | None = None) -> Row:
    """A row that stops at ``max_new_tokens`` or at the model's window.

    Raises:
        ModelError: the prompt is empty, leaves no room in the window, or has ids outside the vocabulary.
    """
    if max_new_tokens < 1:
        raise SettingsError(f"max_new_tokens is {max_new_tokens}; ask for at least 1")
    if not prompt or len(prompt) >= body.window:
        raise ModelError(f"a prompt of {len(prompt)} tokens; the model takes 1 to {body.window - 1}: shorten the text")
    if min(prompt) < 0 or max(prompt) >= body.vocabulary:
        raise ModelError(f"a prompt has ids outside the vocabulary of {body.vocabulary}; encode it with this engine")
    uniforms = None
    if seed is not None:
        uniforms = torch.rand(max_new_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Row(member, tuple(prompt), min(max_new_tokens, body.window - len(prompt)), uniforms)


def greedy(logits: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    """The most likely token of each row; its log-probability is 0, as there was no other choice."""
    return logits.argmax(-1).tolist(), [0.0] * len(rows)


def sampler(temperature: float, top_p: float) -> Choose:
    """Sampling at ``temperature`` from the smallest set of tokens whose probabilities reach ``top_p``.

    Probabilities are rounded down to multiples of 2**-62 (`nucleus.fixed_point`), so a smaller one is never drawn.

    Raises:
        SettingsError: ``temperature`` or ``top_p`` is out of range.
    """
    if not (temperature > 0 and 0 < top_p <= 1):
        raise SettingsError(f"temperature {temperature} must be above 0 and top_p {top_p} in (0, 1]")

    def choose(logits: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[float]]:
        weights = fixed_point(logits, temperature)
        if top_p < 1:
            keep_nucleus(weights, top_p)
        return draw(weights, [row.uniform for row in rows])

    return choose


@torch.no_grad()
def decode(
    body: Body,
    place: AdapterContext,
    bank: Bank | None,
    rows: Sequence[Row],
    *,
    choose: Choose,
    stops: frozenset[int],
    rows_at_once: int,
) -> None:
    """Write every row to its end, ``rows_at_once`` at a time, inside ``with place``; rows are grouped by member."""
    ordered = sorted(rows, key=lambda row: row.member)
    for first in range(0, len(ordered), rows_at_once):
        _Batch(body, place, bank, ordered[first : first + rows_at_once]).run(choose, stops)


class _Batch:
    """Rows decoded together: a grid of members x equal slots, a member's last row repeated to fill its slots."""

    def __init__(self, body: Body, place: AdapterContext, bank: Bank | None, rows: list[Row]) -> None:
        self._body, self._place, self._bank = body, place, bank
        self._grid = self._arrange(rows)
        self._read = Prefill(body)

    def run(self, choose: Choose, stops: frozenset[int]) -> None:
        """Decode until every row is done."""
        hidden = self._prefill()
        while True:
            self._write(*choose(self._body.logits(hidden), self._grid), stops)
            if all(row.done for row in self._grid):
                return
            self._compact()
            hidden = self._advance()

    def _arrange(self, live: list[Row]) -> list[Row]:
        """Bind the members that have live rows, and lay the rows out member by member."""
        if self._bank is None:
            return live
        members = sorted({row.member for row in live})
        groups = [[row for row in live if row.member == member] for member in members]
        slots = max(map(len, groups))
        self._place.bind(*bank_views(self._bank, members, self._body.dtype))
        return [group[min(slot, len(group) - 1)] for group in groups for slot in range(slots)]

    def _prefill(self) -> Tensor:
        """Run the prompts; rows that share a prompt, or its beginning, share the work. Returns (N, D)."""
        # Without a bank any rows may share; with one, the grid must keep its shape.
        unique = list(dict.fromkeys(row.prompt for row in self._grid)) if self._bank is None else [r.prompt for r in self._grid]
        slots = None if self._bank is None else len(unique) // len(dict.fromkeys(row.member for row in self._grid))
        groups = self._read.groups(unique, unique, slots, room=max(row.limit for row in self._grid))
        hidden = self._read.begin(unique, groups)[:, -1]
        if len(unique) < len(self._grid):
            number = {prompt: i for i, prompt in enumerate(unique)}
            keep = torch.tensor([number[row.prompt] for row in self._grid], device=hidden.device)
            self._read.keep(keep)
            hidden = hidden[keep]
        return hidden

    def _write(self, tokens: list[int], logprobs: list[float], stops: frozenset[int]) -> None:
        seen: set[int] = set()
        for row, token, logprob in zip(self._grid, tokens, logprobs, strict=True):
            if row.done or id(row) in seen:
                continue
            seen.add(id(row))
            row.tokens.append(token)
            row.logprobs.append(logprob)
            row.finished = token in stops if row.guide is None else not row.guide.allowed(row.tokens)

    def _compact(self) -> None:
        """Drop finished rows once that makes the batch a quarter smaller: shrinking copies the cache."""
        live = list({id(row): row for row in self._grid if not row.done}.values())
        of_member = Counter(row.member for row in live)
        size = len(live) if self._bank is None else len(of_member) * max(of_member.values())
        if size > 0.75 * len(self._grid):
            return
        at = {id(row): i for i, row in enumerate(self._grid)}
        self._grid = self._arrange(live)
        self._read.keep(torch.tensor([at[id(row)] for row in self._grid], device=self._body.device))

    def _advance(self) -> Tensor:
        """One more token of every row, finished or not. Returns hidden states (N, D)."""
        # A finished row may wait beyond the window's end; what it computes is thrown away.
        places = [min(len(row.prompt) + len(row.tokens) - 1, self._body.window - 1) for row in self._grid]
        return self._read.more([row.tokens[-1] for row in self._grid], places)
