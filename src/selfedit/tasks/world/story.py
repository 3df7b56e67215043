"""Stories: a few entities, what is true of them, a passage that says so, and probes that test it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ...types import Probe
from .lexicon import IDENTIFYING, Split, categories, draw_name, pronouns
from .relations import Relation, relations_of

FAMILIES: dict[str, int] = {"e1": 1, "e2": 2, "e3": 3}
PROBE_KINDS: tuple[str, ...] = ("direct", "reworded", "reversed", "derived")

CLOSED_BOOK_SEED = 7
CLOSED_BOOK_STORIES = 150

# Relations shared by a family's entities; the first has a value that gets a fact of its own (the chain).
_SHARED: dict[str, tuple[int, ...]] = {"e1": (3, 4), "e2": (2, 3), "e3": (2,)}


@dataclass(frozen=True)
class Fact:
    """``value`` is the ``relation`` of ``subject``."""

    subject: str
    relation: Relation
    value: str


@dataclass(frozen=True)
class Story:
    """Facts about one to three entities of one kind (``mains``) that share relations, and about values of theirs."""

    family: str
    mains: tuple[str, ...]
    facts: tuple[Fact, ...]

    def about(self, subject: str) -> list[Fact]:
        """The facts whose subject is ``subject``."""
        return [fact for fact in self.facts if fact.subject == subject]

    @property
    def chains(self) -> list[tuple[Fact, Fact]]:
        """Pairs (f, g) where g is about f's value: what *derived* probes combine."""
        return [(f, g) for f in self.facts for g in self.facts if f.value == g.subject]


def draw_value(rng: random.Random, relation: Relation, split: Split, taken: set[str]) -> str:
    """A value for ``relation`` that is not in ``taken``, which it joins."""
    while True:
        if relation.identifying:
            value = draw_name(rng, relation.value, split)
        else:
            value = rng.choice(categories()[relation.value])
        if value not in taken:
            taken.add(value)
            return value


def draw_story(
    rng: random.Random,
    split: Split,
    family: str = "e1",
    *,
    n_mains: int | None = None,
    n_shared: int | None = None,
    chain: bool = True,
) -> Story:
    """A story of ``family`` whose names all belong to ``split``. ``chain=False`` leaves the side facts out.

    ``n_mains`` and ``n_shared`` override the family's numbers of entities and of relations that they share.
    """
    kind = rng.choice(IDENTIFYING)
    taken: set[str] = set()
    mains: list[str] = []
    while len(mains) < (n_mains or FAMILIES[family]):
        name = draw_name(rng, kind, split)
        if name not in taken:
            taken.add(name)
            mains.append(name)
    options = list(relations_of(kind))
    n = n_shared or rng.choice(_SHARED[family])
    chained = rng.choice([relation for relation in options if relation.identifying])
    others = [relation for relation in options if relation != chained]
    shared = [chained, *rng.sample(others, n - 1)] if chain else rng.sample(options, n)
    side = rng.choice([relation for relation in relations_of(chained.value) if relation.noun != chained.noun])
    facts: list[Fact] = []
    for main in mains:
        for relation in rng.sample(shared, len(shared)):
            fact = Fact(main, relation, draw_value(rng, relation, split, taken))
            facts.append(fact)
            if chain and relation is chained:
                facts.append(Fact(fact.value, side, draw_value(rng, side, split, taken)))
    return Story(family, tuple(mains), tuple(facts))


def closed_book_stories(n: int = CLOSED_BOOK_STORIES) -> list[Story]:
    """The stories the base knows by heart; their names belong to the pretraining split."""
    rng = random.Random(CLOSED_BOOK_SEED)
    return [draw_story(rng, "pretrain", "e1") for _ in range(n)]


def capitalised(text: str) -> str:
    """``text`` with its first letter in upper case."""
    return text[0].upper() + text[1:]


def clause(rng: random.Random, fact: Fact, named: bool = True) -> str:
    """One prose clause for ``fact``, with the subject's name or its pronoun."""
    template = rng.choice(fact.relation.prose)
    if named:
        return template.format(s=fact.subject, o=fact.subject, p=fact.subject + "'s", v=fact.value)
    subject, object_, possessive = pronouns(fact.relation.subject, fact.subject)
    return template.format(s=subject, o=object_, p=possessive, v=fact.value)


def sentences(rng: random.Random, story: Story, pronoun_share: float = 0.5) -> list[str]:
    """The story as varied prose: entities in any order, told one after the other or (names only) interleaved."""
    groups = _told_together(rng, story)
    told: list[str] = []
    subject = ""
    for group in groups:
        named = group[0].subject != subject or rng.random() >= pronoun_share
        text = clause(rng, group[0], named)
        for fact in group[1:]:
            text += rng.choice((", and ", " and ", "; ")) + clause(rng, fact, named=rng.random() >= pronoun_share)
        subject = group[0].subject
        told.append(capitalised(text) + ".")
    return told


def _told_together(rng: random.Random, story: Story) -> list[list[Fact]]:
    """The facts as sentences-to-be: one fact each, or two about the same subject."""
    blocks = [story.about(main) for main in rng.sample(story.mains, len(story.mains))]
    side = {fact.subject: fact for fact in story.facts if fact.subject not in story.mains}
    groups: list[list[Fact]] = []
    for block in blocks:
        queue = rng.sample(block, len(block))
        while queue:
            group = [queue.pop(0)]
            if queue and rng.random() < 0.3:
                group.append(queue.pop(0))
            groups.append(group)
            groups.extend([side[fact.value]] for fact in group if fact.value in side)
    if len(blocks) > 1 and rng.random() < 0.25:
        rng.shuffle(groups)
    return groups


def passage(rng: random.Random, story: Story, pronoun_share: float = 0.5) -> str:
    """The story as one paragraph."""
    return " ".join(sentences(rng, story, pronoun_share))


def question(rng: random.Random, kind: str, fact: Fact, then: Fact | None = None) -> Probe:
    """A probe of ``kind`` about ``fact``; a derived one asks for the value of ``then``, the fact about fact's value."""
    relation = fact.relation
    if kind == "direct":
        return Probe(rng.choice(relation.ask).format(e=fact.subject), fact.value, kind)
    if kind == "reworded":
        return Probe(rng.choice(relation.reword).format(e=fact.subject), fact.value, kind)
    if kind == "reversed":
        return Probe(rng.choice(relation.reverse).format(v=fact.value), fact.subject, kind)
    if then is None:
        raise ValueError("a derived probe needs two facts")
    entity = f"the {relation.noun} of {fact.subject}"
    return Probe(rng.choice(then.relation.ask).format(e=entity), then.value, kind)


def all_probes(rng: random.Random, story: Story) -> list[Probe]:
    """One probe of every kind for every fact (or pair of facts) that can have it, grouped by kind."""
    probes = [question(rng, kind, fact) for kind in ("direct", "reworded") for fact in story.facts]
    probes += [question(rng, "reversed", fact) for fact in story.facts if fact.relation.identifying]
    return probes + [question(rng, "derived", f, g) for f, g in story.chains]


def draw_probes(rng: random.Random, story: Story, per_kind: int = 2) -> tuple[Probe, ...]:
    """At most ``per_kind`` probes of each kind, about facts drawn at random; no two ask for the same thing twice."""
    pool = all_probes(rng, story)
    rng.shuffle(pool)
    chosen: list[Probe] = []
    for kind in PROBE_KINDS:
        chosen += [probe for probe in pool if probe.kind == kind][:per_kind]
    return tuple(chosen)
