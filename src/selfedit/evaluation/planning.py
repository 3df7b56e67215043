"""What a run will do, before it does it: the arithmetic (the time: `timing`)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..config import ArmSettings, Settings
from ..edits.parsing.lines import padded
from ..engine.base import Engine, encode_asked
from ..loop import counted
from ..plugins import find
from ..rewards.seeds import MOST, edits_tried, most_trials
from ..tasks.sources.base import TaskSource
from ..templates import answer_prompt, gold_text
from ..types import TrainSequence, Update
from .ladder import rungs_of

# A self-edit on the embedded world has lines of about 20 tokens. Only the measured speed of bf16 rests on it.
_LINE_TOKENS = 24


def plan(settings: Settings, needs: dict[str, Any] | None = None, why: str = "", notes: Sequence[str] = ()) -> dict[str, Any]:
    """What a run will do, and the arithmetic of it: ``{lines, inner_loops, edits, passages, estimated_seconds: None}`` and
    ``needs``. ``edits``: self-edits that are written; ``passages``: inner loops on something else than those.

    ``needs``: what `machine.needs` says, where the models are at hand. ``why``: why their dtypes were chosen.
    ``notes``: what the task source left out.
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
    lines += [f"           {note}" for note in notes]
    if rounds:
        evaluations = f"{counted(rounds + 1, 'evaluation')} x {counted(tasks.dev, 'development task')}"
        lines += [
            f"training   {counted(rounds, 'round')} x {_round(settings)} {counted(training, 'inner loop')}",
            f"guards     {evaluations} = {counted(looks, 'inner loop')}",
        ]
    else:
        lines.append(f"policy     {protocol.policy or 'the base model: there are no rounds of training'}")
    total = training + looks + tested
    unwritten = [rung for rung in rungs_of(settings).values() if not rung.writes] if protocol.name == "single" else []
    passages = sum(rung.cost(settings) for rung in unwritten)
    written = rounds * tasks.per_round * settings.edits.per_task + looks + tested - passages
    lines += [
        f"{test} {counted(tested, 'inner loop')}",
        f"total      {counted(total, 'inner loop')}, {_length(settings)}",
    ]
    counts = {"inner_loops": total, "edits": written, "passages": passages}
    return {"lines": lines, **counts, "estimated_seconds": None, **needs}


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
    at_once = f"{counted(memory['rows'], 'text')} being written; {counted(memory['tokens'], 'token')} per pass"
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
            "too much   this run needs more memory than it may use: lower edits.max_new_tokens, inner.rank or algorithm.rank, "
            "or take a smaller model"
        )
    return lines


def reading_problems(settings: Settings, engine: Engine, source: TaskSource) -> list[str]:
    """What of the tasks the model that learns can't read or write whole: gold answers and passages, counted."""
    settings = settings.of_learner()
    most, templates = settings.reward.max_answer_tokens, settings.templates
    held_out = source.evaluation()
    tasks = {
        task.id: task for task in (*held_out, *source.dev(), *(t for i in range(settings.rounds) for t in source.draw(i + 1)))
    }
    golds = [len(engine.encode(gold_text(probe, templates))) for task in tasks.values() for probe in task.probes]
    problems = []
    if long := sum(n > most for n in golds):
        problems.append(
            f"{long} of {counted(len(golds), 'gold answer')} have more than reward.max_answer_tokens = {most} tokens (the "
            f"longest {max(golds)}): such an answer counts as right only where the model would write it word for word, as "
            "answers are cut there. Raise reward.max_answer_tokens"
        )
    if "in_context" not in (*rungs_of(settings), settings.reward.proxy):
        return problems
    room = engine.window - most
    asked = [answer_prompt(task, task.probes[0], templates, open_book=True) for task in held_out if task.probes]
    if cut := sum(len(encode_asked(engine, templates, prompt, answering=True)) > room for prompt in asked):
        problems.append(
            f"{cut} of {counted(len(asked), 'held-out passage')} with a question are too long for the model's window of "
            f"{engine.window} tokens: where a passage is in view (in_context), the model sees its beginning"
        )
    return problems


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
