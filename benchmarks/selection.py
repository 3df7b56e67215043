"""Time to the same answer: each task's best self-edit, by a full search and by racing.

    python -m benchmarks.selection --json selection.json

The base writes 5 edits for each of 50 development tasks. The full search trains every edit with 3 seeds to its end, on the
engine; racing looks at them half-way, trains the best 3 to the end, and gives more seeds to close ones
(`benchmarks.race`). Both adapt the upper layers only, as the settings that ship do, so that what lies below is computed
once. Both choose by the gold answers' log-likelihood on half of a task's probes; their picks are trained again with fresh seeds,
and asked the other half. The Trainer's inner loops (training alone, no probes) are timed between the parts of the race, which is
run once; what the full search would take with it is their mean times their number.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.peft_baseline import run_baseline
from benchmarks.peft_reference import load_base
from selfedit import stats
from selfedit.config import Settings, make_settings
from selfedit.edits.text import Text
from selfedit.engine.adapters.lora import initial_adapter
from selfedit.engine.adapters.targets import find_layout
from selfedit.engine.model.loading import DTYPES
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.machine import EMBEDDED, load_engine
from selfedit.inner import Trial
from selfedit.policies.language_model import LanguageModel
from selfedit.rewards.examiner import Examiner
from selfedit.run import write_atomically
from selfedit.tasks.sources.world import draw_tasks
from selfedit.types import Task, Update

from .machine import describe
from .race import EditRunner, RacePlan, race
from .sides import Setup, setups
from .turns import say

RESCORING_SEEDS = 3


@dataclass(frozen=True)
class Plan:
    """``loops``: the Trainer's inner loops that are timed; ``seed`` draws the tasks and everything else."""

    tasks: int = 50
    edits: int = 5
    seeds: int = 3
    loops: int = 30
    seed: int = 11
    race: RacePlan = field(default_factory=lambda: RacePlan(marks=(0.5,), keep=0.6))


@dataclass(frozen=True)
class Search:
    """What is searched: candidate c is ``trials[c]``, a group a task; ``fresh`` are the tasks with the probes held back."""

    examiner: Examiner
    trials: list[Trial]
    groups: list[list[int]]
    fresh: list[Task]


def prepare(engine: TorchEngine, settings: Settings, plan: Plan) -> Search:
    """Draw tasks, let the base write edits, and split the probes: even ones to choose by, odd ones to score with."""
    tasks = draw_tasks("dev", ("e1",), plan.tasks, seed=plan.seed)
    asked = [replace(task, probes=task.probes[::2]) for task in tasks]
    policy, kind = LanguageModel(engine, None, settings), Text(settings, engine)
    trials: list[Trial] = []
    groups: list[list[int]] = [[] for _ in tasks]
    edits = policy.propose(tasks, plan.edits, plan.seed)
    for number, edit in enumerate(edits):
        owner = number // plan.edits
        change = kind.change(edit, asked[owner])
        if change.update:
            groups[owner].append(len(trials))
            trials.append(Trial(f"{owner}/{edit.index}", asked[owner], change, 1000 * number))
    kept = [g for g, group in enumerate(groups) if group]
    fresh = [replace(tasks[g], probes=tasks[g].probes[1::2]) for g in kept]
    return Search(Examiner(engine, settings), trials, [groups[g] for g in kept], fresh)


def seeded(trial: Trial, seed: int) -> Update:
    """The trial's update from another seed."""
    assert trial.change.update is not None  # only usable edits are searched
    return replace(trial.change.update, seed=seed)


def full_search(search: Search, seeds: int) -> list[int]:
    """The best edit of each group by the mean over seeds, everything trained to its end."""
    runner = EditRunner(search.examiner, search.trials, on=None)
    everyone = range(len(search.trials))
    values = [runner.advance(1.0, everyone), *(runner.repeat(everyone, seed) for seed in range(1, seeds))]
    means = {c: fmean(value[c] for value in values) for c in everyone}
    return [max(group, key=means.__getitem__) for group in search.groups]


class Trainer:
    """The baseline: one inner loop after another, in the dtype and attention that are its fastest."""

    def __init__(self, search: Search) -> None:
        self._search = search
        for setup in setups():
            self._timed(setup, 0, steps=1)  # imports and first uses
        self.setup = min(setups(), key=lambda setup: min(self._timed(setup, 0, steps=4) for _ in range(2)))
        self.seconds: list[float] = []

    def run(self, loops: int) -> None:
        """Time more inner loops, without the probes (the race's seconds have its own scoring in them)."""
        for _ in range(loops):
            number = 7 * len(self.seconds) % len(self._search.trials)  # spread over tasks and edits
            self.seconds.append(self._timed(self.setup, number))

    def _timed(self, setup: Setup, number: int, steps: int = 0) -> float:
        examiner, trial = self._search.examiner, self._search.trials[number]
        update = seeded(trial, trial.seed)
        update = replace(update, steps=steps or update.steps)
        engine = cast(TorchEngine, examiner.engine)
        base, start = load_base(EMBEDDED, DTYPES[setup[0]], setup[1]), _start(engine, update, examiner.settings.targets)
        began = time.perf_counter()
        run_baseline("trainer", base, update, start, [], max_new_tokens=1)
        return time.perf_counter() - began


def _start(engine: TorchEngine, update: Update, targets: str) -> Any:
    return initial_adapter(find_layout(engine.model, targets, ""), update.rank, update.alpha, update.seed)


@dataclass
class TimedRunner:
    """A race's runner whose own seconds are counted, with the baseline's loops between its parts."""

    runner: EditRunner
    trainer: Trainer
    loops: int
    seconds: float = 0.0

    def advance(self, fraction: float, candidates: Collection[int]) -> dict[int, float]:
        """See `benchmarks.race.Runner`."""
        return self._timed(lambda: self.runner.advance(fraction, candidates))

    def repeat(self, candidates: Collection[int], seed: int) -> dict[int, float]:
        """See `benchmarks.race.Runner`."""
        return self._timed(lambda: self.runner.repeat(candidates, seed))

    def _timed(self, work: Any) -> dict[int, float]:
        self.trainer.run(self.loops)
        began = time.perf_counter()
        found: dict[int, float] = work()
        self.seconds += time.perf_counter() - began
        return found


def rescored(search: Search, picks: Sequence[int]) -> list[float]:
    """Accuracy of each group's pick: trained as usual with fresh seeds, asked the probes that nobody chose by."""
    owners = [g for g in range(len(picks)) for _ in range(RESCORING_SEEDS)]
    updates = [seeded(search.trials[picks[g]], 777_000 + i) for i, g in enumerate(owners)]
    bank = search.examiner.engine.apply(updates, on=None)
    answers = search.examiner.answers([search.fresh[g] for g in owners], on=None, members=bank)
    right = [fmean(answer.correct for answer in row) for row in answers]
    return [fmean(right[g * RESCORING_SEEDS : (g + 1) * RESCORING_SEEDS]) for g in range(len(picks))]


def measure(plan: Plan) -> dict[str, Any]:
    """The whole comparison."""
    settings = make_settings({"model": {"device": "cpu"}})  # as the Trainer's base
    engine = cast(TorchEngine, load_engine(settings))
    search = prepare(engine, settings, plan)
    say(f"{len(search.trials)} usable edits of {len(search.groups)} tasks; choosing the Trainer's setup")
    trainer = Trainer(search)
    runner = TimedRunner(EditRunner(search.examiner, search.trials, on=None), trainer, loops=max(1, plan.loops // 6))
    found = race(search.groups, runner, plan.race)
    trainer.run(plan.loops - len(trainer.seconds))
    per_loop, inner_loops = fmean(trainer.seconds), len(search.trials) * plan.seeds
    say(f"race: {runner.seconds:.1f} s for {found.trained:.0f} of {inner_loops} inner loops; the Trainer {per_loop:.2f} s a loop")
    began = time.perf_counter()
    best = full_search(search, plan.seeds)
    full_seconds = time.perf_counter() - began
    say(f"full search on the engine: {full_seconds:.1f} s; scoring both picks again")
    full, raced = rescored(search, best), rescored(search, found.best)
    first = rescored(search, [group[0] for group in search.groups])
    return {
        "machine": describe(),
        "threads": torch.get_num_threads(),
        "speedup": per_loop * inner_loops / runner.seconds,
        "agreement": fmean(a == b for a, b in zip(best, found.best, strict=True)),
        "accuracy_full": fmean(full),
        "accuracy_raced": fmean(raced),
        "accuracy_first": fmean(first),
        "difference": _interval(stats.bootstrap([a - b for a, b in zip(raced, full, strict=True)])),
        "n_tasks": len(search.groups),
        "trainer_loops_timed": len(trainer.seconds),
        "seconds": {"trainer_per_loop": per_loop, "raced_search": runner.seconds, "full_search_engine": full_seconds},
        "inner_loops": {"full": inner_loops, "raced": found.trained},
        "trainer_setup": trainer.setup,
        "engine_dtype": engine.dtype,
        "targets": settings.targets,
        "plan": {"edits": plan.edits, "seeds": plan.seeds, "seed": plan.seed, "race": vars(plan.race)},
        "seed_noise": found.noise,
    }


def _interval(found: stats.Interval) -> dict[str, float]:
    return {"difference": found.mean, "low": found.low, "high": found.high}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--edits", type=int, default=5, help="self-edits for each task")
    parser.add_argument("--loops", type=int, default=30, help="inner loops of the Trainer to time")
    parser.add_argument("--seed", type=int, default=11, help="draws the tasks")
    parser.add_argument("--marks", type=float, nargs="*", default=[0.5], help="fractions of the steps")
    asked = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT reads a property that transformers renamed
    plan = Plan(tasks=asked.tasks, edits=asked.edits, loops=asked.loops, seed=asked.seed)
    plan = replace(plan, race=replace(plan.race, marks=tuple(asked.marks)))
    made = measure(plan)
    write_atomically(asked.json, json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
