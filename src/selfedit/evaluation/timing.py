"""How long a run will take: a few of its own passages, written about, trained on and asked about before it begins.

What is left out takes a few percent: the policy's own training, the guards' other figures, grading, loading.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from statistics import fmean
from typing import Any

import torch

from ..config import Settings, sub_seed
from ..edits.text import passage_change
from ..engine.base import Engine, LocalEngine
from ..engine.training.fit import tokens_per_step
from ..inner import COHORTS_PER_CHUNK
from ..plugins import find
from ..rewards.examiner import Examiner
from ..types import Edit, Task, Update
from ..writer import EDITS_PER_CHUNK
from .planning import made_up_updates

TASKS = 2  # passages that are tried
_STEPS, _NEW_TOKENS = 2, 16  # optimiser steps, and tokens of a text, that are timed where the whole would take too long


def measured_seconds(
    settings: Settings, planned: dict[str, Any], writer: LocalEngine, learner: Engine, tasks: Sequence[Task]
) -> float:
    """Seconds that the run of a plan (`planning.plan`) takes: so many edits and inner loops as the first ``tasks`` need.

    Edits of these are written to their ends, as nobody knows how long they become; training is timed for a few steps of as many
    members as a run has at once, and counted by tokens.
    """
    edits, writing = _written(settings, planned["edits"], writer, tasks)
    own = settings.of_learner()
    kind, by_id = find("edits", settings.edits.kind)(own, learner), {task.id: task for task in tasks}
    changes = [(by_id[edit.task_id], kind.change(edit, by_id[edit.task_id])) for edit in edits]
    usable = [(t, c.update) for t, c in changes if c.update and not learner.check(c.update)]
    usable = usable or [(task, made_up_updates(settings, learner, 1, 1)[0]) for task in tasks]
    passages = [c.update for task in tasks if (c := passage_change(own, learner, task)).update]
    per_token, answering = _tried(own, learner, usable, planned["inner_loops"])
    edit_tokens, passage_tokens = (fmean(map(_tokens, some)) if some else 0.0 for some in ([u for _, u in usable], passages))
    of_edits = planned["inner_loops"] - planned["passages"]
    trained = of_edits * edit_tokens + planned["passages"] * passage_tokens
    return round(planned["edits"] * writing + trained * per_token + planned["inner_loops"] * answering, 1)


def _tokens(update: Update) -> float:
    """Tokens that an update trains on."""
    return update.steps * tokens_per_step(update)


def _written(settings: Settings, n: int, engine: LocalEngine, tasks: Sequence[Task]) -> tuple[list[Edit], float]:
    """The base's edits of the tasks, and seconds per edit where as many are written together as a run of ``n`` has."""
    policy = find("policies", settings.edits.writer)(engine, None, settings)
    seed, k = sub_seed(settings.seed, "plan"), settings.edits.per_task
    began = time.perf_counter()
    edits: list[Edit] = policy.propose(tasks, k, seed)
    seconds = time.perf_counter() - began
    prompts = [completion.prompt_ids for edit in edits for completion in edit.completions if completion.prompt_ids]
    rounds = max(1, settings.rounds)
    rows = min(settings.model.at_once.rows, EDITS_PER_CHUNK, max(n // rounds, 1) * settings.edits.samples)
    if not prompts or rows <= len(prompts):
        return edits, seconds / max(1, len(edits))
    few, many = (_sampled(settings, engine, list(islice(cycle(prompts), size))) for size in (len(prompts), rows))
    return edits, seconds * many / few * len(prompts) / rows / len(edits)


def _sampled(settings: Settings, engine: LocalEngine, prompts: Sequence[Sequence[int]]) -> float:
    """Seconds for the first tokens of one text per prompt."""
    began = time.perf_counter()
    how = settings.edits
    new = min(_NEW_TOKENS, how.max_new_tokens)
    engine.sample(prompts, range(len(prompts)), on=None, max_new_tokens=new, temperature=how.temperature, top_p=how.top_p)
    return time.perf_counter() - began


def _tried(settings: Settings, engine: Engine, updates: Sequence[tuple[Task, Update]], loops: int) -> tuple[float, float]:
    """Seconds per trained token, and per inner loop for the answers, with as many members at once as a run has."""
    side_by_side = min(COHORTS_PER_CHUNK, torch.get_num_threads()) if settings.model.device == "cpu" else 1
    n = max(1, min(side_by_side * settings.model.at_once.members, loops))
    chosen = list(islice(cycle(updates), n))
    some = [replace(u, steps=min(u.steps, _STEPS), seed=seed) for seed, (_, u) in enumerate(chosen)]
    engine.apply(some[:1], on=None)  # first-use costs
    began = time.perf_counter()
    bank = engine.apply(some, on=None)
    training = time.perf_counter() - began
    examiner = Examiner(engine, settings)
    began = time.perf_counter()
    asked = [task for task, _ in chosen]
    if any(task.probes for task in asked):
        examiner.answers(asked, on=None, members=bank)
        examiner.likelihoods(bank, dict(enumerate(asked)), on=None)
    answering = time.perf_counter() - began
    return training / max(1, sum(bank.trained_tokens)), answering / n
