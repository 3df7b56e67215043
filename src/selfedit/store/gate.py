"""The gate before a merge: at the largest scale whose cost is within limits, or not at all.

Finite weights, the norm ratio, KL to the frozen base on anchors, what earlier edits lose (their questions, and bits per token
of their text), and a gain on the edit's own text that is more than noise. Only B is scaled, so a change shrinks with its scale.
None of it is measured on a task's probes: those are the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, Literal

from ..config import GateSettings
from ..edits.parsing.pairs import question_and_answer
from ..parts import Parts
from ..types import Adapter, Change, Probe, Task, TrainSequence

CONFIDENCE = 2.0  # standard errors that the gain on the edit's own text has to be above
EARLIER = 16  # earlier edits that are looked at, drawn anew for each merge
Verdict = Literal["accepted", "scaled", "rejected"]


@dataclass(frozen=True)
class Cost:
    """What a merge at one scale costs, and gains. ``drop`` and ``bits`` are None where no earlier edit shows them.

    ``gains``: for each sequence of the edit, by how many nats per token it became likelier.
    """

    norm_ratio: float
    kl: float
    drop: float | None
    bits: float | None
    gains: tuple[float, ...]

    def row(self) -> dict[str, Any]:
        """For the journal, which has no NaN: a number that is not finite is None; the gains' mean."""
        values = {**vars(self), "gains": fmean(self.gains) if self.gains else None}
        return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Decision:
    """At which scale an edit is merged (0: rejected), why not at more, and the costs that were measured, by scale."""

    scale: float
    reasons: tuple[str, ...] = ()
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """For the journal."""
        return {"verdict": self.verdict, "scale": self.scale, "reasons": list(self.reasons), "tried": self.tried}

    @property
    def verdict(self) -> Verdict:
        """In a word."""
        return "rejected" if not self.scale else "scaled" if self.scale < 1 else "accepted"


def over_limits(cost: Cost, limits: GateSettings) -> list[str]:
    """Each limit that a merge exceeds, in plain words. A cost that is not a number exceeds its limit."""
    reasons = []
    if not cost.norm_ratio <= limits.max_norm_ratio:
        reasons.append(f"the edit's norm ratio is {cost.norm_ratio:.3f}, over {limits.max_norm_ratio}")
    if not cost.kl <= limits.max_kl:
        reasons.append(f"KL to the base on anchors is {cost.kl:.3f} nats, over {limits.max_kl}")
    if cost.drop is not None and not cost.drop <= limits.max_drop:
        reasons.append(f"{cost.drop:.3f} of earlier edits' questions are lost, over {limits.max_drop}")
    if cost.bits is not None and not cost.bits <= limits.max_bits:
        reasons.append(f"earlier edits' text costs {cost.bits:.3f} bits per token more, over {limits.max_bits}")
    low = lower_bound(cost.gains, CONFIDENCE)
    if not low > 0:
        reasons.append(f"the edit's own text may have gained nothing (the lower bound is {low:.3f} nats per token, not above 0)")
    return reasons


def lower_bound(gains: Sequence[float], confidence: float) -> float:
    """The mean less ``confidence`` standard errors; a single gain itself; 0 without any, NaN where one is not finite."""
    if not all(map(math.isfinite, gains)):
        return math.nan
    if len(gains) < 2:
        return gains[0] if gains else 0.0
    return fmean(gains) - confidence * stdev(gains) / len(gains) ** 0.5


def decide(cost_at: Callable[[float], Cost], limits: GateSettings) -> Decision:
    """Accept at scale 1, or find by bisection the largest scale that passes; reject where none that was tried does."""
    tried: dict[str, dict[str, Any]] = {}

    def problems(scale: float) -> list[str]:
        cost = cost_at(scale)
        tried[f"{scale:g}"] = cost.row()
        return over_limits(cost, limits)

    reasons = problems(1.0)
    if not reasons:
        return Decision(1.0, (), tried)
    low, high = 0.0, 1.0
    for _ in range(limits.bisections):
        middle = (low + high) / 2
        low, high = (low, middle) if problems(middle) else (middle, high)
    return Decision(low, tuple(reasons), tried)


class CostMeter:
    """Measures what merging one edit costs, at any scale. ``before``: the adapter until then; ``earlier`` may be empty."""

    def __init__(
        self,
        parts: Parts,
        anchors: Sequence[TrainSequence],
        edit: Change,
        earlier: Sequence[tuple[Task, Change]],
        before: Adapter | None,
    ) -> None:
        self.engine, self.examiner = parts.inner.engine, parts.inner.examiner
        self.anchors, self.before = anchors, before
        self.own = [sequence.unpadded for sequence in edit.sequences]
        self.texts = [sequence.unpadded for _, change in earlier for sequence in change.sequences]
        # A model wrote the answers: they may be too long to be asked for.
        room = self.examiner.reward.max_answer_tokens
        self.asked: list[Task] = []
        for task, change in earlier:
            pairs = dict(filter(None, map(question_and_answer, change.lines)))
            probes = tuple(Probe(q, a) for q, a in pairs.items() if len(self.engine.encode(a)) <= room)
            self.asked += [replace(task, probes=probes)] if probes else []

    def cost(self, adapter: Adapter, scale: float, merged: Adapter | None) -> Cost:
        """The cost of merging ``adapter`` at ``scale``; ``merged`` is the model's adapter then."""
        own_before, texts_before, right_before = self._before
        own, texts, right = self._measured(merged)
        kl = self.engine.token_kl(self.anchors, on=merged) if self.anchors else 0.0
        graded = [(was, now) for was, now in zip(right_before, right, strict=True) if None not in (was, now)]
        lost = sum(bool(was and not now) for was, now in graded)
        return Cost(
            norm_ratio=scale * self.engine.norm_ratio(adapter),
            kl=kl,
            drop=lost / len(graded) if graded else None,
            bits=(fmean(texts) - fmean(texts_before)) / math.log(2) if texts else None,
            gains=tuple(was - now for was, now in zip(own_before, own, strict=True)),
        )

    @cached_property
    def _before(self) -> tuple[list[float], list[float], list[bool | None]]:
        return self._measured(self.before)

    def _measured(self, on: Adapter | None) -> tuple[list[float], list[float], list[bool | None]]:
        """Losses of the edit's own sequences and of the earlier ones', and which earlier questions are answered right.

        None: an answer that could not be graded.
        """
        losses, n = self.engine.sequence_loss([*self.own, *self.texts], on=on), len(self.own)
        rows = self.examiner.answers(self.asked, on=on) if self.asked else []
        right = [None if answer.problem else answer.correct for row in rows for answer in row]
        return losses[:n], losses[n:], right
