"""The metric `grid`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..string_rules import checked_golds
from .base import Case, Rule


class Grid(Rule):
    """Right where all rows of numbers are equal (ARC's grids)."""

    def right(self, case: Case) -> bool:
        """See `Rule`."""
        return grid_match(case.text, case.golds)


def grid_match(prediction: str, golds: Sequence[str]) -> bool:
    """Whether ``prediction`` is the grid of numbers of one of ``golds``: one row per line, or lists as in ARC's files.

    Spaces, commas and brackets between the numbers do not matter; the numbers of each row do. A text without numbers, or with
    anything else beside them, is no grid.

    Raises:
        ValueError: ``golds`` is empty, or one of them is no grid.
        TypeError: ``golds`` is one string instead of a sequence of strings.
    """
    wanted = [_grid(gold) for gold in checked_golds(golds)]
    if None in wanted:
        raise ValueError(f"the gold answer {golds[wanted.index(None)][:40]!r} is no grid; give rows of numbers")
    return _grid(prediction) in wanted


def _grid(text: str) -> tuple[tuple[str, ...], ...] | None:
    """Rows of numbers as written; None for anything else."""
    rows = re.split(r"[\n\]]", text)
    grid = tuple(tuple(re.split(r"[\s,\[]+", row.strip(" \t\r,["))) for row in rows if row.strip(" \t\r,[]"))
    return grid if grid and all(re.fullmatch(r"\d{1,9}", cell) for row in grid for cell in row) else None
