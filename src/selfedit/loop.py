"""The one loop: tasks, edits, outcomes, a better policy. Read this first; it is what runs.

Everything plugs into a line of `reinforce`: another task source, policy, engine, reward, algorithm or guard. Every line's
work is journaled in chunks (`work.py`), so this straight-line program, run again after a crash, goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .algorithms.base import State, judge
from .engine.base import Adapter
from .run import replace_directory
from .tasks.source import TaskSource
from .types import Outcome
from .work import Work


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the policy after each round (index 0: the base), and one row per round for the summary."""

    policies: list[Adapter | None]
    rows: list[dict[str, Any]]


def reinforce(work: Work, source: TaskSource) -> Trained:
    """Run every round of reinforcement learning; a round that breaks a budget is rolled back."""
    run, settings = work.run, work.settings
    dev, known = source.dev(), source.known(settings.guards.anchors)
    _announce(
        work,
        "look-0",
        "Looking at the base: what it writes, and what its edits are worth on development tasks",
        dev=len(dev),
    )
    base, styles = work.look(0, None, dev, known)
    best_dev = base.dev_accuracy
    trained = Trained([None], [{"round": 0, "style_shares": styles, "guards": vars(base), "verdict": "base"}])
    policy: Adapter | None = None
    state: State = {}
    for round in run.rounds():
        key = f"round-{round}"
        tasks = source.draw(round)
        n = len(tasks) * settings.edits.per_task
        _announce(work, key, f"Round {round}: {n} self-edits for {len(tasks)} new passages, each tried and undone", n=n)
        edits = work.edits(key, policy, tasks, settings.edits.per_task)
        trials = work.trials(key, edits, tasks)
        before = dict(zip((t.id for t in tasks), work.before(key, policy, tasks), strict=True))
        outcomes = work.outcomes(key, policy, trials, [before[trial.task.id] for trial in trials])
        made = work.improve(round, policy, judge(edits, outcomes), state)
        _announce(
            work, f"look-{round}", f"Round {round}: learned from the edits; checking the new policy", dev=len(dev)
        )
        figures, styles = work.look(round, made.policy, dev, known)
        decision = work.settle(round, figures, base, best_dev, changed=made.policy is not policy)
        if decision["verdict"] == "accepted":
            policy, state, best_dev = made.policy, made.state, max(best_dev, figures.dev_accuracy)
        if policy is not None:
            replace_directory(run.directory / "policy" / key, policy.save)
        shares = _shares(outcomes, int(made.figures["learned_from"]), len(edits))
        row = {"round": round, **shares, "algorithm": made.figures, "style_shares": styles, **decision}
        trained.policies.append(policy)
        trained.rows.append(row)
        run.emit("round", **row)
    return trained


def _announce(work: Work, key: str, text: str, n: int = 0, dev: int = 0) -> None:
    """Say what is about to happen, and how much of it: edits to write and inner loops to run."""
    total = n * (1 + work.settings.inner.seeds) if n else 2 * dev
    work.run.emit("stage", name=key, text=text, total=total)


def _shares(outcomes: list[Outcome], selected: int, n_edits: int) -> dict[str, Any]:
    """Mean reward over usable edits, and the shares of valid ones and of those that the policy learned from."""
    rewards = [o.reward for o in outcomes if o.reward is not None]
    return {
        "mean_reward": sum(rewards) / len(rewards) if rewards else None,
        "mean_gain": sum(o.gain or 0.0 for o in outcomes if o.gain is not None) / len(rewards) if rewards else None,
        "valid_share": len(rewards) / len(outcomes) if outcomes else 0.0,
        "failures": sorted({o.reason for o in outcomes if o.reason})[:5],
        "selected_share": selected / n_edits if n_edits else 0.0,
        "n_edits": n_edits,
    }
