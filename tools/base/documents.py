"""The stream of documents the base is pretrained on.

A document is a shared prefix (a passage) and *branches* that see the prefix but not each other: every question is asked
alone with its passage, so that an answer can't be had by elimination, and one passage serves many questions. A
closed-book document is a branch without a prefix.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Literal

from selfedit.tasks.world.lexicon import IDENTIFYING, draw_name
from selfedit.tasks.world.story import (
    FAMILIES,
    Fact,
    Story,
    all_probes,
    capitalised,
    clause,
    draw_story,
    passage,
    sentences,
)
from selfedit.tasks.world.writing import derived, qa, reverse_qa, reverse_statement, statement
from selfedit.templates import built_in_templates

from .edits import implications, rewrite, self_qa

Part = tuple[str, float]  # text, and the weight of its tokens in the loss
Stage = Literal["bind", "grow", "full"]

# Weights of a token in the loss, by what it belongs to.
ANSWER, EDIT = 1.0, 0.7

# How many times a probe of a kind counts when a document's questions are drawn: the hard kinds are rarer and learned later.
_WEIGHT = {"reversed": 3, "derived": 4}


@dataclass(frozen=True)
class Document:
    """A prefix seen by every branch, and branches that each end the text."""

    prefix: str
    branches: list[list[Part]] = field(default_factory=list)


def _questions(rng: random.Random, story: Story, n: int) -> list[list[Part]]:
    """``n`` branches that each ask one thing: probes of every kind, and questions in the wording of edits."""
    pool: list[tuple[str, str]] = []
    for probe in all_probes(rng, story):
        pool += [(probe.question, probe.answer)] * _WEIGHT.get(probe.kind, 1)
    asked = [qa(fact) for fact in story.facts] + [reverse_qa(f) for f in story.facts if f.relation.identifying]
    asked += [qa(derived(*pair)) for pair in story.chains]
    pool += [tuple(text.removeprefix("Question: ").split(" Answer: ")) for text in asked]  # type: ignore[misc]
    chosen = [rng.choice(pool) for _ in range(n)]
    ask = built_in_templates()["world"].answer
    return [[(ask.format(question=q), 0.0), (" " + a, ANSWER)] for q, a in chosen]


def _cloze(rng: random.Random, fact: Fact) -> list[Part]:
    """The fact told once more, where only its value counts: plain induction, the first step towards answering."""
    before, after = clause(rng, replace(fact, value="|")).split("|")
    return [(" " + capitalised(before).rstrip(), 0.0), (" " + fact.value, ANSWER), (after + ".", 0.0)]


def reading(rng: random.Random, story: Story, n_questions: int, pronoun_share: float, cloze_share: float = 0.0) -> Document:
    """A passage with questions, each asked alone; a ``cloze_share`` of them as sentences to complete."""
    text = passage(rng, story, pronoun_share)
    branches = [
        _cloze(rng, rng.choice(story.facts)) if rng.random() < cloze_share else question
        for question in _questions(rng, story, n_questions)
    ]
    return Document(f"Passage: {text}\n", branches)


def writing(rng: random.Random, story: Story, n_edits: int) -> Document:
    """A passage with imperfect edits of several forms, each written alone."""
    told = sentences(rng, story)
    branches: list[list[Part]] = []
    for _ in range(n_edits):
        form = rng.choices(("implications", "self_qa", "rewrite"), (0.6, 0.25, 0.15))[0]
        text = {"implications": implications, "self_qa": self_qa}.get(form, lambda r, s, _: rewrite(r, s))(rng, story, told)
        prompt = built_in_templates()["world"].prompts[form].partition("\n")[2]
        branches.append([(prompt, 0.0), (text, EDIT)])
    return Document(f"Passage: {' '.join(told)}\n", branches)


def knowing(rng: random.Random, stories: list[Story], n: int) -> Document:
    """``n`` closed-book branches: prose, statements and questions about stories known by heart."""
    branches: list[list[Part]] = []
    for _ in range(n):
        story = rng.choice(stories)
        fact = rng.choice(story.facts)
        form = rng.choices(("passage", "asked", "stated", "prose"), (0.08, 0.62, 0.2, 0.1))[0]
        if form == "passage":
            branches.append([(" " + passage(rng, story), 0.5)])
        elif form == "asked":
            branches.append(_questions(rng, story, 1)[0])
        elif form == "prose":
            branches.append([(" " + capitalised(clause(rng, fact)) + ".", 0.5)])
        else:
            choices = [statement(fact)]
            choices += [reverse_statement(fact)] if fact.relation.identifying else []
            choices += [statement(derived(*pair)) for pair in story.chains]
            branches.append([(" " + rng.choice(choices), 0.5)])
    return Document("", branches)


def recall(rng: random.Random, most: int = 12) -> Document:
    """Names repeated in other orders: which second word follows a first one is known from the list alone (induction)."""
    names = [draw_name(rng, rng.choice(IDENTIFYING), "pretrain") for _ in range(rng.randint(3, most))]
    branches: list[list[Part]] = []
    for _ in range(2):
        branch: list[Part] = []
        for name in rng.sample(names, len(names)):
            first, second = name.split()
            branch += [(f" {first}", 0.0), (f" {second}", ANSWER), (",", 0.0)]
        branches.append(branch)
    return Document("Names: " + ", ".join(names) + "\n", branches)


def document(rng: random.Random, stage: Stage, known: list[Story], progress: float = 1.0) -> Document:
    """One document of a curriculum ``stage``; ``progress`` (0..1) through the first stage makes it harder.

    ``bind``: names to recall, and one or two relations of a few entities, the name in every sentence. ``grow``: whole stories,
    few pronouns, and the other skills begin. ``full``: the final mixture.
    """
    if stage == "bind":
        if rng.random() < 0.15:
            return recall(rng, most=3 + round(9 * progress))
        n_mains = rng.choice((1, 2, 2, 3) if progress < 0.2 else (1, 2, 3, 4, 6, 8))
        n_shared = rng.choice((1, 1, 2)) if n_mains < 4 else 1
        story = draw_story(rng, "pretrain", n_mains=n_mains, n_shared=n_shared, chain=False)
        return reading(rng, story, 4 + n_mains, pronoun_share=0.0, cloze_share=0.4)
    form = rng.choices(("read", "write", "know"), (0.5, 0.3, 0.2) if stage == "grow" else (0.37, 0.45, 0.18))[0]
    if form == "know":
        return knowing(rng, known, 6)
    family = rng.choices(list(FAMILIES), (0.5, 0.4, 0.1))[0]
    story = draw_story(rng, "pretrain", family)
    if form == "write":
        return writing(rng, story, 2)
    if stage == "grow" and rng.random() < 0.4:
        story = draw_story(rng, "pretrain", family, n_shared=rng.choice((1, 2)), chain=rng.random() < 0.3)
    return reading(rng, story, 8, pronoun_share=rng.choice((0.0, 0.3)) if stage == "grow" else 0.5)
