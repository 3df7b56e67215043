"""What a run will do, before it does it: the arithmetic, and a short measurement for the time."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

from ..config import ArmSettings, Settings
from ..edits.parsing.lines import padded
from ..engine.base import Engine
from ..inner import COHORTS_PER_CHUNK
from ..loop import counted
from ..plugins import find
from ..rewards.seeds import MOST, edits_tried, most_trials
from ..types import TrainSequence, Update
from .ladder import rungs_of

# A self-edit on the embedded world: lines of about 20 tokens; one of SEAL's published round: 8 sequences with the passage
# (16 179 padded tokens an epoch). Only the estimates rest on it.
_LINE_TOKENS, _SEQUENCES = 24, 8


def plan(settings: Settings, needs: dict[str, Any] | None = None, why: str = "") -> dict[str, Any]:
    """What a run will do, and the arithmetic of it: ``{lines, inner_loops, estimated_seconds: None}`` and ``needs``.

    ``needs``: what `machine.needs` says, where the models are at hand. ``why``: why their dtypes were chosen.
    """
    needs = needs or {"memory": None}
    tasks, protocol, learner, rounds = settings.tasks, settings.protocol, settings.learner, settings.rounds
    training = rounds * most_trials(settings, edits_tried(settings, tasks.per_round))
    looks = (rounds + 1) * tasks.dev if rounds else 0
    tested, test = _tested(settings)
    held_out = tasks.evaluation if protocol.name == "single" else protocol.n_tasks
    lines = [f"model      {settings.model.path} ({why or settings.model.dtype})", *_memory_lines(needs["memory"])]
    if learner:
        lines += [f"learner    {learner.path}", *_memory_lines(needs.get("learner_memory"))]
    lines.append(f"tasks      {tasks.source}; tested on {counted(held_out, 'held-out task')} of the split {tasks.split}")
    if rounds:
        evaluations = f"{counted(rounds + 1, 'evaluation')} x {counted(tasks.dev, 'development task')}"
        lines += [
            f"training   {counted(rounds, 'round')} x {_round(settings)} {counted(training, 'inner loop')}",
            f"guards     {evaluations} = {counted(looks, 'inner loop')}",
        ]
    else:
        lines.append(f"policy     {protocol.policy or 'the base model: there are no rounds of training'}")
    total = training + looks + tested
    lines += [
        f"{test} {counted(tested, 'inner loop')}",
        f"total      {counted(total, 'inner loop')}, {_length(settings)}",
    ]
    return {"lines": lines, "inner_loops": total, "estimated_seconds": None, **needs}


def _round(settings: Settings) -> str:
    """A round's arithmetic, up to the equals sign."""
    tasks, edits, reward, seeds = settings.tasks, settings.edits, settings.reward, settings.inner.seeds
    of = f" of {edits.samples} samples" if edits.samples > 1 else ""
    if reward.proxy != "none":
        of += f" ({reward.proxy} leaves {min(edits.per_task, reward.proxy_keep)})"
    product = f"{counted(tasks.per_round, 'task')} x {counted(edits.per_task, 'edit')}{of}"
    if seeds == "auto":
        return f"{product} x 1 to {MOST} seeds = at most"
    n_edits = edits_tried(settings, tasks.per_round)
    repeated = most_trials(settings, n_edits) - seeds * n_edits
    if repeated:
        return f"({product}, {repeated} of them with a second seed) ="
    return f"{product}{f' x {seeds} seeds' if seeds > 1 else ''} ="


def _tested(settings: Settings) -> tuple[int, str]:
    """How many inner loops the protocol takes, about as long as one edit's each, and a line that leads to their number."""
    protocol, n, rungs = settings.protocol, settings.protocol.n_tasks, rungs_of(settings)
    if protocol.name == "single":
        return sum(rung.cost(settings) for rung in rungs.values()), f"ladder     {', '.join(rungs)} ="
    if protocol.name == "cpt":
        # Every rung has all passages of all groups, and no learning rate is chosen.
        ladder = settings.ladder.model_copy(update={"middle_tasks": n, "passage_lr_factors": (1.0,)})
        tasks = settings.tasks.model_copy(update={"evaluation": n})
        whole = settings.model_copy(update={"ladder": ladder, "tasks": tasks})
        trained = sum(rung.cost(whole) for rung in rungs.values() if rung.for_groups) // n
        loops = round(trained * n * (protocol.steps or settings.inner.steps) / settings.inner.steps)
        groups = f"{counted(protocol.groups, 'group')} of {counted(protocol.passages, 'passage')}"
        return loops, f"cpt        {counted(trained, 'rung')} x {groups}, one adapter per group: as many steps as"
    passages = {
        name: protocol.passages * min(arm.groups or protocol.groups, protocol.groups) for name, arm in protocol.arms.items()
    }
    loops = n + sum(_arm_loops(settings, arm, passages[name]) for name, arm in protocol.arms.items())
    learned = ", ".join(f"{name} {number}" for name, number in passages.items())
    return loops, f"{protocol.name:<10} passages per arm: {learned}; {n} learned alone: as many steps as"


def _arm_loops(settings: Settings, arm: ArmSettings, passages: int) -> int:
    """Inner loops of one arm on so many passages, with what it learns again."""
    protocol, steps = settings.protocol, settings.inner.steps
    longer = arm.steps / steps if arm.steps else 1.0
    loops = round(passages * longer * (1 + arm.replay + arm.rehearsal))
    for every, length in ((arm.consolidate, longer), (arm.refresh, arm.refresh_steps / steps)):
        again = range(every, protocol.passages + 1, every) if every else range(0)
        loops += round(sum(again) * length * (1 + arm.rehearsal)) * passages // protocol.passages
    return loops


def _length(settings: Settings) -> str:
    """How long an inner loop is; at most, where an edit chooses."""
    (recipe, _), pad_to = find("edits", settings.edits.kind).largest(settings), settings.inner.pad_to
    how_long = counted(recipe.epochs, "epoch") if recipe.epochs else counted(recipe.steps, "step")
    most = "" if recipe == settings.inner.recipe else "at most "
    sequences = f"up to {counted(recipe.batch_size, 'sequence')}{' per step' if recipe.epochs else ''}"
    to_length = f" padded to {pad_to} tokens (or the model's window)" if pad_to else ""
    return f"each of {most}{how_long} x {sequences}{to_length}, rank {recipe.rank}"


def _memory_lines(memory: dict[str, Any] | None) -> list[str]:
    """The memory budget, what it is spent on, and what goes through the model at once; nothing where it is not planned."""
    if memory is None:
        return []
    names = {"training": "inner loops", "m_step": "training the policy", "scoring": "scoring", "decoding": "writing"}
    uses = ", ".join(f"{name} {memory[part]:.2f}" for part, name in names.items() if memory[part])
    at_once = f"{counted(memory['rows'], 'text')} being written; {counted(memory['tokens'], 'token')} being scored"
    if memory["training"]:
        sets = f" in each of up to {memory['cohorts']} parallel sets" if memory["cohorts"] > 1 else ""
        members, step = counted(memory["members"], "adapter"), counted(memory["step_tokens"], "token")
        at_once = f"{members} in training{sets}, with up to {step} each per step; {at_once}"
    lines = [
        f"memory     {memory['budget']:g} GiB to plan with, {memory['peak']:.2f} GiB needed: {memory['base']:.2f} for the base "
        f"model, and at any time one of: {uses}",
        f"at once    {at_once}",
    ]
    if memory["peak"] > memory["budget"]:
        lines.append(
            "too much   this run needs more memory than it may use: lower edits.max_new_tokens, inner.rank or "
            "algorithm.batch_size, or take a smaller model"
        )
    return lines


def made_up_updates(settings: Settings, engine: Engine, n: int, steps: int) -> list[Update]:
    """Updates of the run's sizes, to take the time of."""
    inner, rng = settings.inner, random.Random(0)
    recipe, _ = find("edits", settings.edits.kind).largest(settings)
    line = TrainSequence(tuple((engine.encode("a") * _LINE_TOKENS)[:_LINE_TOKENS]), (True,) * _LINE_TOKENS)
    sequences = (line,) * recipe.batch_size
    if inner.pad_to:
        sequences = padded(sequences, min(engine.window, inner.pad_to), engine.eos_id)
    update = replace(recipe.update(sequences), steps=steps, schedule="linear")
    return [replace(update, seed=rng.randrange(1 << 31)) for _ in range(n)]


def measured_seconds(settings: Settings, engine: Engine) -> float:
    """Seconds for all inner loops of a run on the learner's engine, from a chunk of random updates timed for a few steps.

    An estimate: writing edits, answering probes and longer passages are not included; edits shorter than the mean take less.
    """
    whole = find("edits", settings.edits.kind).largest(settings)[0].steps_for(_SEQUENCES)
    n, steps = COHORTS_PER_CHUNK * settings.of_learner().model.at_once.members, min(whole, 3)
    updates = made_up_updates(settings, engine, n, steps)
    engine.apply(updates[:1], on=None)  # first-use costs
    began = time.perf_counter()
    engine.apply(updates, on=None)
    seconds_per_loop = (time.perf_counter() - began) / n * whole / steps
    return round(seconds_per_loop * plan(settings)["inner_loops"], 1)
