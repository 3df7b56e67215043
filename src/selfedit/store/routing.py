"""Which document a question is about: full-text search over documents by the rare pairs of words that they share."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Sequence
from itertools import pairwise

from ..types import Task

_WORD = re.compile(r"\w+")


class Router:
    """Routes a question to a document that says one of its rare pairs of adjacent words, such as a name (SQLite FTS5).

    A pair is rare if at most ``rare`` of all texts (a share; at least one text) have it: of the documents and ``background``,
    texts that nothing is routed to and that show what is common. Of several such documents it is the one that shares most
    words and pairs, each weighed by ``log(texts / texts that have it)``. A question without such a document belongs to none:
    what the model knows without documents is asked of it without their edits. Titles and texts are indexed, never probes.
    """

    def __init__(self, documents: Sequence[Task], background: Sequence[str] = (), rare: float = 0.01) -> None:
        self._n_documents, self._n = len(documents), len(documents) + len(background)
        self._most = max(1, int(rare * self._n))
        self._db = sqlite3.connect(":memory:")
        # Diacritics stay: names that differ by them alone are different names.
        self._db.execute("create virtual table texts using fts5(text, tokenize = 'unicode61 remove_diacritics 0')")
        own = [f"{document.title}\n{document.text}" for document in documents]
        self._db.executemany("insert into texts (rowid, text) values (?, ?)", enumerate([*own, *background]))

    def route(self, question: str) -> int | None:
        """The number of the best document, or None."""
        words = _WORD.findall(question.lower())
        weights: dict[int, float] = {}
        candidates: set[int] = set()
        for phrase in dict.fromkeys([(word,) for word in words] + list(pairwise(words))):
            found = self._texts_with(phrase)
            own = [number for number in found if number < self._n_documents]
            for number in own:
                weights[number] = weights.get(number, 0.0) + math.log(self._n / len(found))
            if len(phrase) == 2 and len(found) <= self._most:
                candidates.update(own)
        return min(candidates, key=lambda number: (-weights[number], number), default=None)

    def _texts_with(self, phrase: Sequence[str]) -> list[int]:
        rows = self._db.execute("select rowid from texts where texts match ?", (f'"{" ".join(phrase)}"',))
        return [row[0] for row in rows]
