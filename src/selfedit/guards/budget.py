"""The first guards: four budgets that a round's new policy has to keep, or the round is rolled back.

- ``kl``: mean KL(policy || base) per token on anchor texts; forgetting follows it (arXiv 2509.04259).
- ``retention``: closed-book accuracy on what the base knows by heart, against the base's own.
- ``norm_ratio``: the largest ||dW|| / ||W|| over modules, a cheap alarm.
- ``dev``: what the policy's edits do for development tasks, against the best round so far on the tasks that could be graded
  in both; a training reward that rises while this falls is the sign of a reward being gamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ..config import GuardSettings
from ..edits.text import answer_prompt, gold_text
from ..engine.base import Adapter, Engine, encode_asked
from ..templates import Templates
from ..types import Probe, Task, TrainSequence


@dataclass(frozen=True)
class Figures:
    """What the guards measured of one policy. ``retention`` is None where the task source knows no such questions.

    ``dev``: the accuracy on each development task that could be graded.
    """

    kl: float
    retention: float | None
    norm_ratio: float
    dev: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """For journal and report; ``dev_accuracy`` is None where no development task could be graded."""
        figures = {"kl": self.kl, "retention": self.retention, "norm_ratio": self.norm_ratio}
        return {**figures, "dev_accuracy": fmean(self.dev.values()) if self.dev else None, "dev_tasks": len(self.dev)}


def dev_change(figures: Figures, other: Figures) -> float | None:
    """Development accuracy less the other's, on the tasks that could be graded in both; None where there are none."""
    both = figures.dev.keys() & other.dev.keys()
    return sum(figures.dev[i] - other.dev[i] for i in sorted(both)) / len(both) if both else None


def best_of(best: Figures, figures: Figures) -> Figures:
    """The better one on development tasks; ``best`` of equals, and where ``figures`` has none."""
    change = dev_change(figures, best)
    return figures if figures.dev and (change is None or change > 0) else best


def anchor_sequences(engine: Engine, texts: Sequence[str]) -> list[TrainSequence]:
    """Anchor texts as sequences in which every token but the first is measured."""
    rows = [engine.encode_prompt(text)[: engine.window] for text in texts]
    return [TrainSequence.whole(ids) for ids in rows if len(ids) > 1]


def retention(engine: Engine, probes: Sequence[Probe], templates: Templates) -> float | None:
    """Share of closed-book ``probes`` that the mounted model's greedy answer gets right."""
    if not probes:
        return None
    nowhere = Task("known", "", (), ())
    pairs = [
        (
            encode_asked(engine, templates, answer_prompt(nowhere, probe, templates)),
            [*engine.encode(gold_text(probe, templates)), engine.eos_id],
        )
        for probe in probes
    ]
    scored = engine.score(None, [pairs])[0]
    return sum(s.greedy for s in scored) / len(scored)


def over_budget(figures: Figures, base: Figures, best: Figures, limits: GuardSettings) -> list[str]:
    """In plain words, each budget that ``figures`` break."""
    reasons = []
    if not figures.kl <= limits.max_kl:
        reasons.append(f"KL to the base on anchors is {figures.kl:.3f} nats, over {limits.max_kl}")
    if not figures.norm_ratio <= limits.max_norm_ratio:
        reasons.append(f"the policy's change has norm ratio {figures.norm_ratio:.3f}, over {limits.max_norm_ratio}")
    if figures.retention is not None and base.retention is not None:
        lost = base.retention - figures.retention
        if lost > limits.max_retention_drop:
            reasons.append(f"closed-book accuracy fell by {lost:.3f}, over {limits.max_retention_drop}")
    change = dev_change(figures, best)
    if change is not None and -change > limits.max_dev_drop:
        reasons.append(f"development accuracy fell by {-change:.3f} from the best round's, over {limits.max_dev_drop}")
    return reasons


def measure(
    engine: Engine,
    policy: Adapter | None,
    anchors: Sequence[TrainSequence],
    known: Sequence[Probe],
    templates: Templates,
    dev: Mapping[str, float],
) -> Figures:
    """The figures of a policy; it is left mounted."""
    engine.mount(policy)
    return Figures(
        kl=engine.token_kl(anchors) if policy is not None and anchors else 0.0,
        retention=retention(engine, known, templates),
        norm_ratio=engine.norm_ratio(policy) if policy is not None else 0.0,
        dev=dev,
    )


def as_row(figures: Figures, limits: GuardSettings) -> dict[str, Any]:
    """The figures with the budgets that they were held against."""
    return {**figures.row(), "limits": limits.model_dump(exclude={"anchors"})}
