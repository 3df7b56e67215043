"""The gate before a merge: at the largest scale whose cost is within limits, or not at all.

Finite weights, the norm ratio, KL to the frozen base on anchors, what earlier edits lose (their questions, and bits a token of
their text), and a gain on the edit's own text that is more than noise. Only B is scaled, so a change shrinks with its scale.
None of it is measured on a task's probes: those are the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from ..config import GateSettings

Verdict = Literal["accepted", "scaled", "rejected"]


@dataclass(frozen=True)
class Cost:
    """What a merge at one scale costs, and gains. ``drop`` and ``bits`` are None where no earlier edit tells.

    ``gains``: nats a token that each sequence of the edit became likelier by.
    """

    norm_ratio: float
    kl: float
    drop: float | None
    bits: float | None
    gains: tuple[float, ...]

    def row(self) -> dict[str, Any]:
        """For the journal, which has no NaN: a number that is not finite is None."""
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
    """In plain words, each limit that a merge breaks. A cost that is not a number breaks its limit."""
    reasons = []
    if not cost.norm_ratio <= limits.max_norm_ratio:
        reasons.append(f"the edit's norm ratio is {cost.norm_ratio:.3f}, over {limits.max_norm_ratio}")
    if not cost.kl <= limits.max_kl:
        reasons.append(f"KL to the base on anchors is {cost.kl:.3f} nats, over {limits.max_kl}")
    if cost.drop is not None and not cost.drop <= limits.max_drop:
        reasons.append(f"{cost.drop:.3f} of earlier edits' questions are lost, over {limits.max_drop}")
    if cost.bits is not None and not cost.bits <= limits.max_bits:
        reasons.append(f"earlier edits' text costs {cost.bits:.3f} bits a token more, over {limits.max_bits}")
    low = lower_bound(cost.gains, limits.confidence)
    if not low > 0:
        reasons.append(f"what the edit's own text gains is not above 0 for sure (at least {low:.3f} nats a token)")
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
