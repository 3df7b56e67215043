"""What can be said of an entity: its relations, with their prose, and with the wordings that their questions are asked in.

Two vocabularies never meet. Passages, implications and the questions that a *policy* writes use ``noun`` and ``prose``;
evaluation *probes* use ``ask``, ``reword`` and ``reverse``. A test proves that no wording is in both.

Slots: ``{e}`` the subject's full name, ``{v}`` the value; in prose ``{s}``, ``{o}``, ``{p}`` are the subject's name or its
subject, object and possessive pronoun. The wordings are in ``assets/world/relations.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .lexicon import IDENTIFYING, read_asset


@dataclass(frozen=True)
class Relation:
    """One attribute of a kind of entity."""

    subject: str  # kind of entity that has it
    noun: str  # "the {noun} of {e} is {v}"
    value: str  # kind of name, or category
    prose: tuple[str, ...]  # clauses of a passage
    ask: tuple[str, ...]  # direct probes
    reword: tuple[str, ...]  # indirect probes
    reverse: tuple[str, ...] = ()  # probes that name the value and ask for the subject

    @property
    def identifying(self) -> bool:
        """Whether the value is a name, so that it can be asked backwards and have facts of its own."""
        return self.value in IDENTIFYING


@cache
def relations_of(kind: str) -> tuple[Relation, ...]:
    """Every relation that entities of ``kind`` have."""
    rows = read_asset("relations.toml")[kind].items()
    return tuple(
        Relation(kind, noun, row["value"], *(tuple(row.get(name, ())) for name in ("prose", "ask", "reword", "reverse")))
        for noun, row in rows
    )
