"""The one loop: tasks, edits, outcomes, a better policy. Read this first; it is what runs.

Everything plugs into a line of `reinforce`: another task source, policy, engine, reward, algorithm or guard. Every line's
work is journaled in chunks (`work.py`), so this straight-line program, run again after a crash, goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from .algorithms.base import Judged, State, judge
from .engine.base import Adapter
from .guards.budget import best_of
from .rewards.reliability import measure, values_of
from .rewards.seeds import edits_tried, most_trials
from .run import replace_directory
from .tasks.source import TaskSource
from .types import Edit, Outcome
from .work import Work


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the policy after each round (index 0: the base), and one row per round for the summary.

    ``values``: what the edits of all rounds were ranked by, ``values[task][edit][seed]``.
    """

    policies: list[Adapter | None]
    rows: list[dict[str, Any]]
    values: list[list[list[float]]] = field(default_factory=list)


def reinforce(work: Work, source: TaskSource) -> Trained:
    """Run every round of reinforcement learning; a round that breaks a budget is rolled back."""
    run, settings = work.run, work.settings
    dev, known = source.dev(), source.known(settings.guards.anchors)
    told = "Looking at the base: what it writes, and what its edits are worth on development tasks"
    run.emit("stage", name="look-0", text=told, total=2 * len(dev))
    base, styles = work.look(0, None, dev, known)
    best = base
    trained = Trained([None], [{"round": 0, "style_shares": styles, "guards": base.row(), "verdict": "base"}])
    policy: Adapter | None = None
    state: State = {}
    for round in run.rounds():
        key = f"round-{round}"
        tasks = source.draw(round)
        _announce_round(work, round, len(tasks))
        edits = work.edits(key, policy, tasks, settings.edits.per_task)
        outcomes = work.rewards(key, work.beside_learner(policy), edits, tasks)
        judged = judge(edits, outcomes)
        made = work.improve(round, policy, judged, state)
        told = f"Round {round}: learned from the edits; checking the new policy"
        run.emit("stage", name=f"look-{round}", text=told, total=2 * len(dev))
        figures, styles = work.look(round, made.policy, dev, known)
        decision = work.settle(round, figures, base, best, changed=made.policy is not policy)
        if decision["verdict"] == "accepted":
            policy, state, best = made.policy, made.state, best_of(best, figures)
        if policy is not None:
            replace_directory(run.directory / "policy" / key, policy.save)
        ranked_by = settings.algorithm.rank_by[0]
        values = values_of(edits, outcomes, ranked_by)
        shares = _shares(edits, judged, outcomes, int(made.figures["learned_from"]))
        row = {"round": round, **shares, "algorithm": made.figures, "style_shares": styles, **decision}
        row["reliability"] = measure(values).row(ranked_by)
        row["lines_held_out"] = work.lines_held_out(edits, tasks)
        trained.values.extend(values)
        trained.policies.append(policy)
        trained.rows.append(row)
        run.emit("round", **row)
    return trained


def _announce_round(work: Work, round: int, n_tasks: int) -> None:
    settings = work.settings
    n = n_tasks * settings.edits.per_task
    which = "each" if settings.reward.proxy == "none" else "the most promising"
    text = f"Round {round}: {n} self-edits for {n_tasks} new passages, {which} tried and undone"
    total = n + most_trials(settings, edits_tried(settings, n_tasks))
    work.run.emit("stage", name=f"round-{round}", text=text, total=total)


def _shares(edits: list[Edit], judged: list[Judged], outcomes: list[Outcome], selected: int) -> dict[str, Any]:
    """Mean reward over usable edits, however many seeds each had, and the shares of usable ones and of those learned from.

    Shares are of ``n_edits``, those that were tried and of which something is known; ``n_screened`` were not tried (a proxy
    left them out), ``n_ungraded`` could not be graded.
    """
    rewards = [item.reward for item in judged if item.reward is not None]
    gains = [item.gain for item in judged if item.gain is not None]
    tried = {outcome.edit_id for outcome in outcomes}
    return {
        "mean_reward": fmean(rewards) if rewards else None,
        "mean_gain": fmean(gains) if gains else None,
        "valid_share": len(rewards) / len(judged) if judged else 0.0,
        "failures": sorted({o.reason for o in outcomes if o.reason})[:5],
        "selected_share": selected / len(judged) if judged else 0.0,
        "n_edits": len(judged),
        "n_screened": len(edits) - len(tried),
        "n_ungraded": len(tried) - len(judged),
    }
