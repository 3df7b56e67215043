"""Which words say about the same: a list of general English for the offline grader, `assets/grader/synonyms.txt`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from .reading import Word, fold, stem

SYNONYMS = Path(__file__).resolve().parent.parent / "assets" / "grader" / "synonyms.txt"
_NOTHING: frozenset[int] = frozenset()


def senses(words: Iterable[Word]) -> frozenset[int]:
    """The groups of synonyms that any of ``words`` belongs to; numbers have none."""
    groups = _groups()
    return _NOTHING.union(*(groups.get(word.stem, _NOTHING) for word in words))


def synonyms_sha256() -> str:
    """Hash of the list: a grader's table was calibrated with one list, and grades with no other."""
    return hashlib.sha256(SYNONYMS.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _groups() -> dict[str, frozenset[int]]:
    """The numbers of a stem's groups."""
    found: dict[str, set[int]] = defaultdict(set)
    for number, line in enumerate(SYNONYMS.read_text(encoding="utf-8").splitlines()):
        for word in [] if line.startswith("#") else line.split():
            found[stem(fold(word))].add(number)
    return {word: frozenset(numbers) for word, numbers in found.items()}
