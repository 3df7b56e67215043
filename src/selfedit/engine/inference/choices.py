"""Constrained choices: text of which every token is one of a few, sampled from the model's own probabilities over those.

A text is a sequence of choices; of each, one of a few token sequences is written. At every token the model's distribution is cut
to the tokens with which one of them goes on, so the log-probability of a choice is exactly that of the cut distributions, and
policy gradients can learn from it (`TrainSequence.allowed`). Where only one token can follow, it is forced, at a log-probability
of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ...errors import SettingsError
from ..model.nucleus import draw, fixed_point, within

if TYPE_CHECKING:
    from .decode import Row

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Guide:
    """``options[c]``: the token sequences of choice c, none of which begins with another one."""

    options: tuple[tuple[Ids, ...], ...]

    @classmethod
    def of(cls, options: Sequence[Sequence[Sequence[int]]]) -> Guide:
        """Check the options.

        Raises:
            SettingsError: a choice has no option, an option no tokens, or one begins with another one.
        """
        made = cls(tuple(tuple(tuple(option) for option in choice) for choice in options))
        for choice in made.options:
            clash = any(a is not b and b[: len(a)] == a for a in choice for b in choice)
            if not choice or not all(choice) or clash:
                raise SettingsError(
                    f"a choice of {len(choice)} options can't be constrained: there must be one, none may be empty, and none may "
                    "begin with another one"
                )
        return made

    @property
    def longest(self) -> int:
        """Most tokens of a text."""
        return sum(max(map(len, choice)) for choice in self.options)

    def chosen(self, tokens: Sequence[int]) -> list[int]:
        """Which option of each choice a complete text has."""
        return self._read(tokens)[0]

    def allowed(self, tokens: Sequence[int]) -> Ids:
        """The tokens that may follow, in the vocabulary's order; none where the text is complete."""
        return self._read(tokens)[1]

    def _read(self, tokens: Sequence[int]) -> tuple[list[int], Ids]:
        found, at = list[int](), 0
        for choice in self.options:
            rest = tuple(tokens[at:])
            done = next((i for i, option in enumerate(choice) if rest[: len(option)] == option), None)
            if done is None:
                fitting = (option for option in choice if option[: len(rest)] == rest)
                return found, tuple(sorted({option[len(rest)] for option in fitting}))
            found.append(done)
            at += len(choice[done])
        return found, ()


def choose_within(logits: Tensor, rows: Sequence[Row], temperature: float) -> tuple[list[int], list[float]]:
    """A token of each row's guide and its log-probability: `decode.Choose` for rows with guides.

    A row that is done gets any token.
    """
    # A row that is done, or that repeats another one, only keeps the batch's shape.
    allowed = [row.guide.allowed(row.tokens) if row.guide is not None and not row.done else (0,) for row in rows]
    tokens, logprobs = draw(fixed_point(within(logits, allowed), temperature), [row.uniform for row in rows])
    # Exactly 0 where there was no choice.
    return tokens, [0.0 if len(some) == 1 else p for some, p in zip(allowed, logprobs, strict=True)]
