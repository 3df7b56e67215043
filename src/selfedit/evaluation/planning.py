"""What a run will do, before it does it: the arithmetic, and a short measurement for the time."""

from __future__ import annotations

import random
import time
from typing import Any

from ..config import Settings
from ..edits.text import padded
from ..engine.base import Engine
from ..rewards.seeds import MOST, edits_tried, most_trials
from ..types import TrainSequence, Update
from ..work import COHORTS_PER_CHUNK

# A self-edit on the embedded world: lines of about 20 tokens; one of SEAL's published round: 8 sequences with the passage
# (16 179 padded tokens an epoch). Only the estimates rest on it.
_LINE_TOKENS, _SEQUENCES = 24, 8


def plan(settings: Settings, needs: dict[str, Any] | None = None, why: str = "") -> dict[str, Any]:
    """What a run will do, and the arithmetic of it: ``{lines, inner_loops, estimated_seconds: None}`` and ``needs``.

    ``needs``: what `machine.needs` says, where the models are at hand. ``why``: why their dtypes were chosen.
    """
    needs = needs or {"memory": None}
    t, e, i = settings.tasks, settings.edits, settings.inner
    training = settings.rounds * most_trials(settings, edits_tried(settings, t.per_round))
    looks = (settings.rounds + 1) * t.dev if settings.rounds else 0
    ladder, asked = _tested(settings)
    samples = f" of {e.samples} samples" if e.samples > 1 else ""
    total, learner = training + looks + ladder, settings.learner
    lines = [
        f"model      {settings.model.path} ({why or settings.model.dtype})",
        *_memory_lines(needs["memory"]),
        *([f"learner    {learner.path}", *_memory_lines(needs.get("learner_memory"))] if learner else []),
        f"tasks      {t.source}; tested on {_held_out(settings)} held-out tasks of split {t.split}",
        *_training_lines(settings, training, looks, samples),
        asked,
        f"total      {total} inner loops x {_length(settings)}, rank {i.rank}",
    ]
    return {"lines": lines, "inner_loops": total, "estimated_seconds": None, **needs}


def _held_out(settings: Settings) -> int:
    protocol = settings.protocol
    return settings.tasks.evaluation if protocol.name == "single" else protocol.n_tasks


def _training_lines(settings: Settings, training: int, looks: int, samples: str) -> list[str]:
    """The rounds and the guards' looks; where the policy comes from, if not from here."""
    t, e = settings.tasks, settings.edits
    if not settings.rounds:
        return [f"policy     {settings.protocol.policy or 'the base: there are no rounds'}"]
    return [
        f"training   {settings.rounds} rounds x {t.per_round} tasks x {e.per_task} edits{samples}{_screened(settings)} x "
        f"{_seeds(settings)} {training} inner loops",
        f"guards     {settings.rounds + 1} looks x {t.dev} development tasks = {looks} inner loops",
    ]


def _tested(settings: Settings) -> tuple[int, str]:
    """How many inner loops the protocol takes, about as long as one edit's each, and a line that says so."""
    protocol, n = settings.protocol, settings.protocol.n_tasks
    if protocol.name == "single":
        loops = _ladder_loops(settings)
        return loops, f"ladder     {', '.join(settings.rungs_to_climb)} = {loops} inner loops"
    if protocol.name == "cpt":
        each = dict.fromkeys(("passage_only", "base_edits", "base_self_qa", "perfect_edits"), 1)
        if settings.rounds or protocol.policy:
            each |= {"rounds": max(1, settings.rounds), "rl_edits_base_learner": 1}
        rungs = sum(each.get(rung, 0) for rung in settings.rungs_to_climb)
        loops = round(rungs * n * (protocol.steps or settings.inner.steps) / settings.inner.steps)
        many = f"{rungs} rungs x {protocol.groups} group(s) of {protocol.passages} passages, one adapter a group"
        return loops, f"cpt        {many} = as many steps as {loops} inner loops"
    loops, told = n, []
    for name, arm in protocol.arms.items():
        passages = protocol.passages * min(arm.groups or protocol.groups, protocol.groups)
        longer = arm.steps / settings.inner.steps if arm.steps else 1.0
        loops += round(passages * longer * (1 + arm.replay + arm.rehearsal))
        for every, length in ((arm.consolidate, longer), (arm.refresh, arm.refresh_steps / settings.inner.steps)):
            again = range(every, protocol.passages + 1, every) if every else range(0)
            loops += round(sum(again) * length * (1 + arm.rehearsal)) * passages // protocol.passages
        told.append(f"{name} {passages}")
    return (
        loops,
        f"{protocol.name:<10} passages: {', '.join(told)}, and each alone = as many steps as {loops} inner loops",
    )


def _ladder_loops(settings: Settings) -> int:
    """Inner loops of the ladder."""
    t, rungs = settings.tasks, set(settings.rungs_to_climb)
    whole = {"passage_only", "base_edits", "base_self_qa", "perfect_edits"}
    fewer = min(t.evaluation, settings.ladder.middle_tasks)
    loops = len(rungs & whole) * t.evaluation
    loops += len(rungs & {"rl_edits_base_learner", "passage_only_rl_learner"}) * fewer
    rounds = settings.rounds or bool(settings.protocol.policy)
    if "rounds" in rungs and rounds:
        loops += t.evaluation + (rounds - 1) * fewer
    if "best_of_k" in rungs:
        loops += min(t.evaluation, settings.ladder.oracle_tasks) * settings.edits.per_task
    if rungs & {"passage_only", "passage_only_rl_learner"} and len(settings.ladder.passage_lr_factors) > 1:
        loops += len(settings.ladder.passage_lr_factors) * t.dev
    return loops


def _length(settings: Settings) -> str:
    """How long an inner loop is."""
    i = settings.inner
    padded = f" padded to {i.pad_to} tokens (or the model's window)" if i.pad_to else ""
    how_long = f"{i.epochs} epochs" if i.epochs else f"{i.steps} steps"
    return f"{how_long} x up to {i.batch_size} sequences{' a step' if i.epochs else ''}{padded}"


def _screened(settings: Settings) -> str:
    """Where a proxy ranks first: how many of a task's edits it leaves."""
    reward = settings.reward
    return (
        "" if reward.proxy == "none" else f" ({reward.proxy} leaves {min(settings.edits.per_task, reward.proxy_keep)})"
    )


def _seeds(settings: Settings) -> str:
    """The last factor of a round's arithmetic, up to the equals sign."""
    seeds, n_edits = settings.inner.seeds, edits_tried(settings, settings.tasks.per_round)
    if seeds == "auto":
        return f"1 to {MOST} seeds = at most"
    again = most_trials(settings, n_edits) - seeds * n_edits
    return f"{seeds} seed(s){f', {again} a round with one more' if again else ''} ="


def _memory_lines(memory: dict[str, Any] | None) -> list[str]:
    """The memory budget, what it is spent on, and what goes through the model at once; nothing where it is not planned."""
    if memory is None:
        return []
    names = {"training": "inner loops", "m_step": "M-step", "scoring": "scoring", "decoding": "writing"}
    uses = ", ".join(f"{name} {memory[part]:.2f}" for part, name in names.items() if memory[part])
    sets = f" in each of up to {memory['cohorts']} sets beside each other" if memory["cohorts"] > 1 else ""
    training = (
        f"{memory['members']} adapters in training{sets}, with up to {memory['step_tokens']} tokens each a step; "
    )
    lines = [
        f"memory     {memory['budget']:g} GiB to plan with, {memory['peak']:.2f} needed: the base {memory['base']:.2f}, "
        f"and one of: {uses}",
        f"at once    {training if memory['training'] else ''}{memory['rows']} texts being written; "
        f"{memory['tokens']} tokens being scored",
    ]
    if memory["peak"] > memory["budget"]:
        lines.append(
            "too much   more memory than planned with: lower edits.max_new_tokens, inner.rank or algorithm.batch_size, "
            "or take a smaller model"
        )
    return lines


def made_up_updates(settings: Settings, engine: Engine, n: int, steps: int) -> list[Update]:
    """Updates of the run's sizes, to take the time of."""
    inner, rng = settings.inner, random.Random(0)
    lines = [engine.encode("a") * _LINE_TOKENS for _ in range(inner.batch_size)]
    sequences = tuple(TrainSequence(tuple(ids[:_LINE_TOKENS]), (True,) * _LINE_TOKENS) for ids in lines)
    if inner.pad_to:
        sequences = padded(sequences, min(engine.window, inner.pad_to), engine.eos_id)
    return [
        Update(sequences, steps, inner.batch_size, inner.lr, inner.rank, inner.alpha, rng.randrange(1 << 31))
        for _ in range(n)
    ]


def measured_seconds(settings: Settings, engine: Engine) -> float:
    """Seconds for all inner loops of a run on the learner's engine, from a chunk of random updates timed for a few steps.

    An estimate: writing edits, answering probes and longer passages come on top, edits shorter than the mean take less.
    """
    whole = settings.inner.steps_for(_SEQUENCES)
    n, steps = COHORTS_PER_CHUNK * settings.of_learner().model.at_once.members, min(whole, 3)
    updates = made_up_updates(settings, engine, n, steps)
    engine.fit(updates[:1])  # first-use costs
    began = time.perf_counter()
    engine.fit(updates)
    seconds_per_loop = (time.perf_counter() - began) / n * whole / steps
    return round(seconds_per_loop * plan(settings)["inner_loops"], 1)
