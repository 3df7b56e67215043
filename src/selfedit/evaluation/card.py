"""The base's card: what it reads, knows and does not know, measured on held-out entities, beside what shortcuts would score.

Each probe is asked ALONE with its passage: several in one context can be answered by elimination. A shortcut answers without
binding a value to its entity; reading counts only far above it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config import make_settings
from ..engine.base import Engine
from ..run import OnEvent, ignore_event
from ..stats import bootstrap
from ..tasks.world.documents import closed_book_stories
from ..tasks.world.lexicon import CATEGORIES, Split
from ..tasks.world.story import FAMILIES, PROBE_KINDS, Story, all_probes, draw_story, passage
from ..templates import TEMPLATES
from ..types import Probe

CARD_SEED = 2026
_WANTED = {"direct": 0.90, "reworded": 0.90, "reversed": 0.75, "derived": 0.75}
_KNOWN, _UNSEEN = 0.95, 0.08


@dataclass(frozen=True)
class Asked:
    """One probe about one story, and what the shortcuts would score on it (probabilities)."""

    probe: Probe
    text: str  # the passage, or empty: closed-book
    shortcuts: dict[str, float]


def _same_kind(story: Story, probe: Probe) -> list[str]:
    """Every name or word of the story of the same kind as the answer."""
    kinds = {fact.value: fact.relation.value for fact in story.facts}
    kinds |= {fact.subject: fact.relation.subject for fact in story.facts}
    return [value for value, kind in kinds.items() if kind == kinds[probe.answer]]


def _shortcuts(story: Story, text: str, probe: Probe) -> dict[str, float]:
    rivals = [value for value in _same_kind(story, probe) if value not in probe.question]
    order = sorted(rivals, key=text.find)
    frequent = next((1 / len(words) for words in CATEGORIES.values() if probe.answer in words), 0.0)
    return {
        "category": 1 / len(rivals),
        "first": float(order[0] == probe.answer),
        "last": float(order[-1] == probe.answer),
        "most_frequent": frequent,
    }


def reading_probes(split: Split, family: str, kind: str, n: int, with_passage: bool = True) -> list[Asked]:
    """``n`` probes of ``kind``, each about another story of ``split``."""
    rng = random.Random(f"card/{CARD_SEED}/{split}/{family}/{kind}/{with_passage}")
    asked: list[Asked] = []
    while len(asked) < n:
        story = draw_story(rng, split, family)
        text = passage(rng, story)
        pool = [probe for probe in all_probes(rng, story) if probe.kind == kind]
        if pool:
            probe = rng.choice(pool)
            asked.append(Asked(probe, text if with_passage else "", _shortcuts(story, text, probe)))
    return asked


def known_questions(kind: str, n: int) -> list[Asked]:
    """``n`` closed-book probes of ``kind`` about what the base was pretrained on."""
    rng = random.Random(f"card/{CARD_SEED}/known/{kind}")
    pool = [probe for story in closed_book_stories() for probe in all_probes(rng, story) if probe.kind == kind]
    return [Asked(rng.choice(pool), "", {}) for _ in range(n)]


def hits(engine: Engine, asked: Sequence[Asked]) -> list[bool]:
    """Whether greedy decoding writes exactly the gold answer and stops."""
    templates = TEMPLATES["world"]
    pairs = []
    for item in asked:
        template = templates.open_book if item.text else templates.answer
        prompt = template.format(context=item.text, question=item.probe.question)
        pairs.append((engine.encode_prompt(prompt), [*engine.encode(" " + item.probe.answer), engine.eos_id]))
    return [scored.greedy for scored in engine.score(None, [pairs])[0]]


def _row(
    skill: str, family: str, kind: str, right: list[bool], asked: Sequence[Asked], wanted: float
) -> dict[str, Any]:
    interval = bootstrap([float(hit) for hit in right])
    at_most = skill == "closed_book_unseen"
    names = asked[0].shortcuts
    return {
        "skill": skill,
        "family": family,
        "probe": kind,
        "accuracy": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": len(right),
        "wanted": wanted,
        "ok": interval.mean <= wanted if at_most else interval.mean >= wanted,
        "shortcuts": {name: sum(a.shortcuts[name] for a in asked) / len(asked) for name in names},
    }


def measure(model: str = "embedded", n: int = 200, on_event: OnEvent | None = None) -> list[dict[str, Any]]:
    """The card's rows: reading by family and kind, closed-book on pretrained facts, closed-book on unseen ones.

    Test-split names are used: the base was chosen on development names (`train.reading_accuracy`).
    """
    from .machine import load_engine

    emit = on_event or ignore_event
    engine = load_engine(make_settings({"model": {"path": model, "dtype": "fp32"}}))
    jobs = [("in_context", family, kind, _WANTED[kind]) for family in FAMILIES for kind in PROBE_KINDS]
    jobs += [("closed_book", "e1", kind, _KNOWN) for kind in PROBE_KINDS]
    jobs += [("closed_book_unseen", "e1", kind, _UNSEEN) for kind in PROBE_KINDS]
    emit("stage", {"name": "card", "text": f"Asking {len(jobs) * n} questions, each alone", "total": len(jobs)})
    rows = []
    for skill, family, kind, wanted in jobs:
        if skill == "closed_book":
            asked = known_questions(kind, n)
        else:
            asked = reading_probes("test", family, kind, n, with_passage=skill == "in_context")
        if skill == "closed_book_unseen":  # without the passage only frequency is a shortcut
            asked = [replace(a, shortcuts={"most_frequent": a.shortcuts["most_frequent"]}) for a in asked]
        rows.append(_row(skill, family, kind, hits(engine, asked), asked, wanted))
        emit("progress", {"name": "card", "done": 1})
    return rows
