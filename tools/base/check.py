"""The base's card: what it reads, knows and does not know, measured on held-out entities, beside what shortcuts would score.

    python -m tools.base.check
    python -m tools.base.check --model ./my-model --json card.json

Each probe is asked ALONE with its passage: several in one context can be answered by elimination. A shortcut answers without
binding a value to its entity; reading counts only far above it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import track
from rich.table import Table
from rich.text import Text

from selfedit.config import make_settings
from selfedit.engine.base import Engine
from selfedit.evaluation.machine import load_engine
from selfedit.report.words import interval, percent
from selfedit.stats import bootstrap
from selfedit.tasks.world.lexicon import Split, categories
from selfedit.tasks.world.story import (
    FAMILIES,
    PROBE_KINDS,
    Story,
    all_probes,
    closed_book_stories,
    draw_story,
    passage,
)
from selfedit.templates import built_in_templates
from selfedit.types import Probe

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
    frequent = next((1 / len(words) for words in categories().values() if probe.answer in words), 0.0)
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
    templates = built_in_templates()["world"]
    pairs = []
    for item in asked:
        template = templates.open_book if item.text else templates.answer
        prompt = template.format(context=item.text, question=item.probe.question)
        pairs.append((engine.encode_prompt(prompt), [*engine.encode(" " + item.probe.answer), engine.eos_id]))
    return [scored.greedy for scored in engine.score([pairs], on=None)[0]]


def _row(skill: str, family: str, kind: str, right: list[bool], asked: Sequence[Asked], wanted: float) -> dict[str, Any]:
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


def measure(model: str = "embedded", n: int = 200) -> list[dict[str, Any]]:
    """The card's rows: reading by family and kind, closed-book on pretrained facts, closed-book on unseen ones.

    Test-split names are used: the base was chosen on development names (`tools/base/train.py`).
    """
    engine = load_engine(make_settings({"model": {"path": model, "dtype": "fp32"}}))
    jobs = [("in_context", family, kind, _WANTED[kind]) for family in FAMILIES for kind in PROBE_KINDS]
    jobs += [("closed_book", "e1", kind, _KNOWN) for kind in PROBE_KINDS]
    jobs += [("closed_book_unseen", "e1", kind, _UNSEEN) for kind in PROBE_KINDS]
    rows = []
    for skill, family, kind, wanted in track(jobs, f"Asking {n} questions for each row", transient=True):
        if skill == "closed_book":
            asked = known_questions(kind, n)
        else:
            asked = reading_probes("test", family, kind, n, with_passage=skill == "in_context")
        if skill == "closed_book_unseen":  # without the passage only frequency is a shortcut
            asked = [replace(a, shortcuts={"most_frequent": a.shortcuts["most_frequent"]}) for a in asked]
        rows.append(_row(skill, family, kind, hits(engine, asked), asked, wanted))
    return rows


def card_table(card: Sequence[dict[str, Any]]) -> RenderableType:
    """The rows of `measure` for a terminal: each skill, the accuracy that the world needs of it, and what shortcuts reach."""
    shortcuts = ("category", "first", "last", "most_frequent")
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for name in ("Probes", "Accuracy, %", "Wanted, %", "", "Shortcuts, %"):
        table.add_column(name, no_wrap=True)
    for skill, rows in itertools.groupby(card, key=lambda row: row["skill"]):
        table.add_row(Text(skill, style="bold"))
        for row in rows:
            bounds = interval(row["low"], row["high"])
            limit = "<=" if skill == "closed_book_unseen" else ">="
            reached = [percent(row["shortcuts"].get(name), 0).removesuffix(" %") for name in shortcuts]
            table.add_row(
                f"{row['family']} {row['probe']}",
                f"{100 * row['accuracy']:5.1f} ({bounds})",
                f"{limit} {100 * row['wanted']:.0f}",
                Text("ok", style="green") if row["ok"] else Text("missed", style="red"),
                "/".join(reached),
            )
    return Group(table, Text(f"Shortcuts: {', '.join(shortcuts)}.", style="dim"))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. A missed row is shown, and is no error."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.base.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded", help="'embedded', or a directory in the Hugging Face format")
    parser.add_argument("--n", type=int, default=200, help="questions for each row (default: 200)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    asked = parser.parse_args(arguments)
    card = measure(asked.model, asked.n)
    if asked.json is not None:
        asked.json.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    missed = sum(not row["ok"] for row in card)
    Console().print(card_table(card), f"\n{missed} of {len(card)} rows missed." if missed else "\nEvery row is as wanted.")


if __name__ == "__main__":
    main()
