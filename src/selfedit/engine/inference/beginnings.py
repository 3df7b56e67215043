"""Prompts that begin alike: the questions about one passage, in view or not, and whatever a chat template puts first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

Prompt = tuple[int, ...]


def common_beginning(prompts: Sequence[Prompt]) -> int:
    """Tokens that all prompts begin with, but at least one that follows remains of each."""
    # What the first and the last in lexical order share, all between them do.
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False)))
    return min(alike, min(map(len, prompts)) - 1)


def neighbours(prompts: Sequence[Prompt]) -> list[tuple[range, int]]:
    """Groups of prompts that follow each other, and the length of their common beginning.

    A prompt joins the group before it where that saves more than the group loses by a shorter beginning.
    """
    groups: list[tuple[range, int]] = []
    for i, prompt in enumerate(prompts):
        if groups:
            group, n = groups[-1]
            fewer = min(n, common_beginning([prompts[group[0]], prompt]))
            if len(group) * (n - fewer) < fewer:
                groups[-1] = (range(group.start, i + 1), fewer)
                continue
        groups.append((range(i, i + 1), len(prompt) - 1))
    return groups
