"""The outer loop: tasks, edits, outcomes, a better policy. Read this first; it is what runs.

Everything plugs into a line of `train`: another task source, policy, kind of edits, reward, algorithm or guard
(`selfedit plugins`). Every line's work is journaled in chunks, so this straight-line program, run again after a crash, goes on
where it was. The inner loop is `inner.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from .algorithms.base import Algorithm, RatedEdit, State, improve_once, rate
from .guards.base import best_of, guards_of, look_at, settle
from .parts import Parts
from .plugins import find
from .rewards.reliability import measure, values_of
from .rewards.seeds import edits_tried, most_trials
from .run import replace_directory
from .tasks.sources.base import TaskSource
from .types import Adapter, Edit, Outcome


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the policy after each round (index 0: the base), and one row per round for the summary.

    ``values``: what the edits of all rounds were ranked by, ``values[task][edit][seed]``.
    """

    policies: list[Adapter | None]
    rows: list[dict[str, Any]]
    values: list[list[list[float]]] = field(default_factory=list)


def train(parts: Parts, source: TaskSource) -> Trained:
    """Run every round of reinforcement learning; a round that a guard objects to is rolled back."""
    run, settings, inner = parts.run, parts.settings, parts.inner
    algorithm: Algorithm = find("algorithms", settings.algorithm.name)(parts.writer.engine, settings.algorithm)
    dev, known, guards = source.dev(), source.known(settings.guards.anchors), guards_of(parts)
    text = "Evaluating the base model: its self-edits, and their gain on development tasks"
    run.emit("stage", name="look-0", text=text, total=2 * len(dev))
    base = best = look_at(parts, guards, 0, None, dev, known)
    trained = Trained([None], [{"round": 0, "style_shares": base.styles, "guards": base.row(), "verdict": "base"}])
    policy: Adapter | None = None
    state: State = {}
    for round in range(1, settings.rounds + 1):
        key = f"round-{round}"
        tasks = source.draw(round)
        _announce_round(parts, round, len(tasks))
        edits = parts.writer.write(key, policy, tasks, settings.edits.per_task)
        tried = inner.try_edits(key, edits, tasks, on=parts.learns_on(policy))
        rated = rate(edits, tried.outcomes)
        made = improve_once(run, parts.writer.engine, algorithm, round, policy, rated, state)
        text = f"Round {round}: the policy has learned from the self-edits; evaluating the new policy"
        run.emit("stage", name=f"look-{round}", text=text, total=2 * len(dev))
        look = look_at(parts, guards, round, made.policy, dev, known)
        decision = settle(parts, guards, round, look, base, best, changed=made.policy is not policy)
        if decision["verdict"] == "accepted":
            policy, state, best = made.policy, made.state, best_of(best, look)
        if policy is not None:
            replace_directory(run.directory / "policy" / key, policy.save)
        ranked_by = settings.algorithm.rank_by[0]
        values = values_of(edits, tried.outcomes, ranked_by)
        shares = round_shares(edits, rated, tried.outcomes, int(made.figures.get("learned_from", 0)))
        row = {"round": round, **shares, "algorithm": made.figures, "style_shares": look.styles, **decision}
        row["reliability"] = measure(values).row(ranked_by)
        row["lines_held_out"] = tried.lines_held_out
        trained.values.extend(values)
        trained.policies.append(policy)
        trained.rows.append(row)
        run.emit("round", **row)
    return trained


def _announce_round(parts: Parts, round: int, n_tasks: int) -> None:
    settings = parts.settings
    n = n_tasks * settings.edits.per_task
    which = "each of them" if settings.reward.proxy == "none" else "the most promising ones"
    edits = f"{counted(n, 'self-edit')} for {counted(n_tasks, 'new passage')}"
    total = n + most_trials(settings, edits_tried(settings, n_tasks))
    parts.run.emit("stage", name=f"round-{round}", text=f"Round {round}: writing {edits}, testing {which}", total=total)


def counted(n: int, noun: str) -> str:
    """A number with its noun, such as ``1 round`` or ``2 rounds``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def round_shares(edits: list[Edit], rated: list[RatedEdit], outcomes: list[Outcome], selected: int) -> dict[str, Any]:
    """Mean reward over usable edits, however many seeds each had, and the shares of usable ones and of those learned from.

    Shares are of ``n_edits``, those that were tried and of which something is known; ``n_screened`` were not tried (a proxy
    left them out), ``n_ungraded`` could not be graded.
    """
    rewards = [item.reward for item in rated if item.reward is not None]
    gains = [item.gain for item in rated if item.gain is not None]
    tried = {outcome.edit_id for outcome in outcomes}
    return {
        "mean_reward": fmean(rewards) if rewards else None,
        "mean_gain": fmean(gains) if gains else None,
        "valid_share": len(rewards) / len(rated) if rated else 0.0,
        "failures": sorted({o.reason for o in outcomes if o.reason})[:5],
        "selected_share": selected / len(rated) if rated else 0.0,
        "n_edits": len(rated),
        "n_screened": len(edits) - len(tried),
        "n_ungraded": len(tried) - len(rated),
    }
