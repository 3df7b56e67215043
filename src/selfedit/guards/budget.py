"""Four budgets that a round's new policy has to keep.

- ``kl``: mean KL(policy || base) per token on anchor texts; forgetting follows it (arXiv 2509.04259).
- ``retention``: closed-book accuracy on what the base knows by heart, against the base's own.
- ``norm_ratio``: the largest ||dW|| / ||W|| over modules, a cheap alarm.
- ``dev``: what the policy's edits do for development tasks, against the best round so far on the tasks that could be graded
  in both; a training reward that rises while this falls is the sign of a reward being gamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..config import GuardSettings
from ..engine.base import Engine, encode_answered
from ..templates import Templates, answer_prompt, gold_text
from ..types import Adapter, Probe, Task
from .base import Figures, Look, Subject, dev_change


class Budget:
    """Budgets for KL, closed-book knowledge, the size of the change and development accuracy."""

    def __init__(self, settings: GuardSettings) -> None:
        self.limits = settings

    def measure(self, subject: Subject) -> Figures:
        """``retention`` is None where the task source knows no closed-book questions, ``dev_accuracy`` where no development
        task could be graded.
        """
        engine, policy = subject.engine, subject.policy
        return {
            "kl": engine.token_kl(subject.anchors, on=policy) if policy is not None and subject.anchors else 0.0,
            "retention": retention(engine, policy, subject.known, subject.templates),
            "norm_ratio": engine.norm_ratio(policy) if policy is not None else 0.0,
            "dev_accuracy": fmean(subject.dev.values()) if subject.dev else None,
            "dev_tasks": len(subject.dev),
        }

    def objections(self, look: Look, base: Look, best: Look) -> list[str]:
        """Each budget that is exceeded."""
        found, of_base, limits = look.figures["budget"], base.figures["budget"], self.limits
        reasons = []
        if not found["kl"] <= limits.max_kl:
            reasons.append(f"KL to the base on anchors is {found['kl']:.3f} nats, over {limits.max_kl}")
        if not found["norm_ratio"] <= limits.max_norm_ratio:
            reasons.append(f"the policy's change has norm ratio {found['norm_ratio']:.3f}, over {limits.max_norm_ratio}")
        if found["retention"] is not None and of_base["retention"] is not None:
            lost = of_base["retention"] - found["retention"]
            if lost > limits.max_retention_drop:
                reasons.append(f"closed-book accuracy fell by {lost:.3f}, over {limits.max_retention_drop}")
        change = dev_change(look, best)
        if change is not None and -change > limits.max_dev_drop:
            reasons.append(f"development accuracy fell by {-change:.3f} from the best round's, over {limits.max_dev_drop}")
        return reasons


def retention(engine: Engine, on: Adapter | None, probes: Sequence[Probe], templates: Templates) -> float | None:
    """Share of closed-book ``probes`` that the greedy answer under ``on`` gets right."""
    if not probes:
        return None
    nowhere = Task("known", "", (), ())
    pairs = [
        encode_answered(engine, templates, answer_prompt(nowhere, probe, templates), gold_text(probe, templates))
        for probe in probes
    ]
    scored = engine.score([[(pair.prompt, pair.answer) for pair in pairs]], on=on)[0]
    return sum(s.greedy for s in scored) / len(scored)
