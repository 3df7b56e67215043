"""What a guard is, and how a round is looked at and settled: accepted, or rolled back with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..engine.base import Engine
from ..parts import Parts
from ..plugins import find
from ..templates import Templates
from ..types import Adapter, Edit, Outcome, Probe, Task, TrainSequence

Figures = dict[str, Any]  # what a guard measured, as JSON has it


@dataclass(frozen=True)
class Subject:
    """The policy that guards look at. ``dev``: its accuracy on each development task that could be graded, after the edits and
    outcomes beside it; ``known``: questions that the base answers closed-book; ``anchors``: passages of development tasks.
    """

    engine: Engine
    policy: Adapter | None
    templates: Templates
    anchors: Sequence[TrainSequence]
    known: Sequence[Probe]
    dev: Mapping[str, float]
    edits: Sequence[Edit]
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Look:
    """What was seen of a policy: each guard's figures, its accuracy on development tasks, the styles of what it writes."""

    figures: dict[str, Figures]
    dev: dict[str, float]
    styles: dict[str, float]

    def row(self) -> dict[str, Any]:
        """For summary and journal: the figures of the guard `budget`, and those of others under their names."""
        others = {name: figures for name, figures in self.figures.items() if name != "budget"}
        return {**self.figures.get("budget", {}), **others}


class Guard(Protocol):
    """A guard, made from the section ``[guards]``: ``Kind(settings)``; its own settings, if any, are the model ``Settings``."""

    def measure(self, subject: Subject) -> Figures:
        """Figures of a policy; strict JSON, without NaN."""
        ...

    def objections(self, look: Look, base: Look, best: Look) -> list[str]:
        """In plain words, why a policy is not accepted; nothing where it is. ``best``: the best accepted so far."""
        ...


def dev_change(look: Look, other: Look) -> float | None:
    """Development accuracy less the other's, on the tasks that could be graded in both; None where there are none."""
    both = look.dev.keys() & other.dev.keys()
    return sum(look.dev[i] - other.dev[i] for i in sorted(both)) / len(both) if both else None


def best_of(best: Look, look: Look) -> Look:
    """The better one on development tasks; ``best`` of equals, and where ``look`` has none."""
    change = dev_change(look, best)
    return look if look.dev and (change is None or change > 0) else best


def anchor_sequences(engine: Engine, texts: Sequence[str]) -> list[TrainSequence]:
    """Anchor texts as sequences in which every token but the first is measured."""
    rows = [engine.encode_prompt(text)[: engine.window] for text in texts]
    return [TrainSequence.whole(ids) for ids in rows if len(ids) > 1]


def guards_of(parts: Parts) -> dict[str, Guard]:
    """The run's guards by name."""
    settings = parts.settings.guards
    return {name: find("guards", name)(settings) for name in settings.names}


def look_at(
    parts: Parts,
    guards: Mapping[str, Guard],
    round: int,
    policy: Adapter | None,
    dev: Sequence[Task],
    known: Sequence[Probe],
) -> Look:
    """Let a policy write one edit per development task, try them, and have every guard measure it; journaled."""
    key, on, inner = f"look-{round}", parts.learns_on(policy), parts.inner
    before = inner.before(key, dev, on=on)
    edits = parts.writer.write(key, policy, dev, 1)
    trials = [inner.trial(key, e.id, t, inner.change(e, t)) for e, t in zip(edits, dev, strict=True)]
    outcomes = inner.outcomes(key, trials, before, on=on)
    after = [inner.examiner.after(*row) for row in zip(dev, outcomes, before, strict=True)]
    accuracy = {t.id: w.accuracy for t, w in zip(dev, after, strict=True) if w.accuracy is not None}
    styles = parts.style_shares(edit.text for edit in edits)

    def measure() -> dict[str, Any]:
        engine = parts.writer.engine
        anchors = anchor_sequences(engine, [task.text for task in dev[: parts.settings.guards.anchors]])
        subject = Subject(engine, policy, parts.settings.templates, anchors, known, accuracy, edits, outcomes)
        return asdict(Look({name: guard.measure(subject) for name, guard in guards.items()}, accuracy, styles))

    return Look(**parts.run.once(f"{key}/guards", measure))


def settle(
    parts: Parts, guards: Mapping[str, Guard], round: int, look: Look, base: Look, best: Look, *, changed: bool
) -> dict[str, Any]:
    """Accept the round's policy or roll it back, with reasons; journaled."""

    def decide() -> dict[str, Any]:
        reasons = [reason for guard in guards.values() for reason in guard.objections(look, base, best)]
        verdict = "rolled_back" if reasons else "accepted" if changed else "unchanged"
        limits = parts.settings.guards.limits()
        return {"verdict": verdict, "reasons": reasons, "guards": {**look.row(), "limits": limits}}

    return parts.run.once(f"round-{round}/settle", decide)
