"""Does a policy learn how to learn: trained directives against the default recipe, random ones, and the best fixed one.

    python -m benchmarks.directives --seeds 411 412 413 --json directives.json

On the embedded world, for each seed: (a) the default recipe, on the base's own self-edits (its implications, and, as all
directives here have them, its questions and answers); (b) a random directive per passage;
(c) the best fixed directive that random search finds on the training passages, with as many inner loops as reinforcement
learning takes; (d) the policy that reinforcement learning trained (REINFORCE). All are tested on the same held-out
development passages. What (c) and (d) maximise is the same: the accuracy less a price for each token that the inner
loop trains on. Each seed is a run directory under ``--out``: stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selfedit.config import Settings, make_settings, sub_seed
from selfedit.edits.directives import Directive, Directives
from selfedit.evaluation.experiment import general_style
from selfedit.evaluation.ladder import Ladder
from selfedit.evaluation.machine import load_engine, numerics, resolve
from selfedit.evaluation.rungs.base import Result
from selfedit.loop import train
from selfedit.parts import Parts
from selfedit.policies.directive_writer import DirectiveWriter
from selfedit.run import open_run, write_atomically
from selfedit.stats import bootstrap_seeds
from selfedit.tasks.sources.base import TaskSource, open_source
from selfedit.types import Completion, Edit, Task

from .machine import describe
from .turns import say

ARMS = ("default", "default_self_qa", "random", "best_fixed", "trained")
TOKEN_PRICE = 1.5e-5  # accuracy per token trained on: a default inner loop's 1 300 tokens cost about .02
_TRIED_ON = 16  # training passages that a candidate of the search is tried on


def settings_for(seed: int, rounds: int, passages: int, evaluation: int, more: dict[str, Any]) -> Settings:
    """The run that trains the policy; its ladder is climbed here."""
    options = {
        "forms": [["self_qa"]],  # the base's own choice in 99 of 100 cases
        "samples": [1, 2],
        "lr_factors": [0.5, 1.0, 2.0],
        "steps": [3, 6, 12],
        "rank": [8, 16],
        # The base never saw a number: whatever its layers do, two digits stay within .8 nats of each other.
        "temperature": 0.1,
    }
    fields = {
        "seed": seed,
        "rounds": rounds,
        "tasks": {"per_round": passages, "dev": 8, "evaluation": evaluation},
        "edits": {"kind": "directives", "per_task": 8, "directives": options},
        "reward": {"weights": {"exact": 1.0, "tokens": -TOKEN_PRICE}, "pilot": 0},
        # The last layer is enough for a few choices, and disturbs the rest of the model least.
        "algorithm": {
            "name": "reinforce",
            "rank_by": ["reward"],
            "targets": "all-linear@-1:",
            "rank": 16,
            "alpha": 32.0,
            "lr": 1e-3,
            "epochs": 3,
            "batch_size": 32,
            "reinforce": {"kl": 0.0, "minibatch": 20},
        },
        "guards": {"max_kl": 2.0, "max_dev_drop": 0.5},
        **more,
    }
    return make_settings(fields)


@dataclass(frozen=True)
class Chooser:
    """Directives that no policy chose, with the texts that the base writes for them."""

    parts: Parts
    kind: Directives

    def drawn(self, rng: random.Random) -> Directive:
        """A random directive: every field by itself, every option equally likely."""
        options = [rng.choice(choice) for choice in self.kind.choices()]
        directive, _, problem = self.kind.read("".join(options))
        if directive is None:
            raise AssertionError(problem)
        return directive

    def edits(self, key: str, tasks: Sequence[Task], directives: Sequence[Directive]) -> list[Edit]:
        """One edit per task, as its directive says."""
        rows = [
            Edit(
                task_id=task.id,
                index=0,
                form="+".join(directive.forms),
                prompt="",
                completion=Completion((), (), (), directive.text, True),
                temperature=1.0,
                top_p=1.0,
                seed=sub_seed(self.parts.settings.seed, key, task.id),
                policy_hash=key,
                kind="directives",
            )
            for task, directive in zip(tasks, directives, strict=True)
        ]
        writer = DirectiveWriter(self.parts.writer.engine, None, self.parts.settings)
        return writer.with_texts(tasks, list(zip(rows, directives, strict=True)))


def result_of(ladder: Ladder, name: str, tasks: Sequence[Task], edits: Sequence[Edit], on: Any = None) -> Result:
    """The edits' accuracy on their tasks."""
    changes = [ladder.inner.change(edit, task) for edit, task in zip(edits, tasks, strict=True)]
    return ladder.tried(name, on, tasks, changes, [edit.text for edit in edits])


def search(parts: Parts, chooser: Chooser, source: TaskSource, loops: int) -> dict[str, Any]:
    """The best fixed directive by random search on training passages, with a given number of inner loops; journaled."""
    rng = random.Random(sub_seed(parts.settings.seed, "search"))
    tasks = [task for round in range(1, parts.settings.rounds + 1) for task in source.draw(round)]
    before = dict(zip((t.id for t in tasks), parts.inner.before("search", tasks, on=None), strict=True))
    found: list[tuple[float, Directive]] = []
    for n in range(loops // _TRIED_ON):
        directive, some = chooser.drawn(rng), rng.sample(tasks, _TRIED_ON)
        key = f"search/{n}"
        edits = chooser.edits(key, some, [directive] * _TRIED_ON)
        trials = [parts.inner.trial(key, e.id, t, parts.inner.change(e, t)) for e, t in zip(edits, some, strict=True)]
        outcomes = parts.inner.outcomes(key, trials, [before[t.id] for t in some], on=None)
        found.append((fmean(o.gain if o.gain is not None else -1.0 for o in outcomes), directive))
    value, best = max(found, key=lambda pair: pair[0])
    return {"directive": best, "value": value, "inner_loops": len(found) * _TRIED_ON}


def one_seed(settings: Settings, directory: Path) -> dict[str, Any]:
    """Train, search, and test all ways on the same passages."""
    with numerics(settings), open_run(directory, settings, _show, resolve) as run:
        engine = load_engine(run.settings)
        parts = Parts.of(run, engine, engine, general_style)
        source = open_source(run.settings)
        chooser = Chooser(parts, Directives(run.settings, engine))
        trained = train(parts, source)
        loops = sum(row["n_edits"] for row in trained.rows if "n_edits" in row)
        fixed = search(parts, chooser, source, loops)
        tasks = source.evaluation()
        ladder = Ladder(parts, trained, tasks, source.dev())
        last, rng = trained.policies[-1], random.Random(sub_seed(run.settings.seed, "random"))
        written = {
            "default": (parts.writer.write("ladder/default", None, tasks, 1, "implications"), None),
            "default_self_qa": (parts.writer.write("ladder/self_qa", None, tasks, 1, "self_qa"), None),
            "random": (chooser.edits("random", tasks, [chooser.drawn(rng) for _ in tasks]), None),
            "best_fixed": (chooser.edits("fixed", tasks, [fixed["directive"]] * len(tasks)), None),
            "trained": (parts.writer.write("ladder/trained", last, tasks, 1), parts.learns_on(last)),
        }
        results = {name: result_of(ladder, name, tasks, edits, on) for name, (edits, on) in written.items()}
    return {
        "seed": settings.seed,
        "arms": {name: {"by_task": r.by_task, "tokens": r.trained_tokens} for name, r in results.items()},
        "best_fixed": fixed["directive"].text,
        "chosen": _chosen(written["trained"][0]),
        "rounds": [{key: row.get(key) for key in ("round", "mean_reward", "verdict")} for row in trained.rows],
        "inner_loops": {"trained": loops, "best_fixed": fixed["inner_loops"]},
    }


def _chosen(edits: Sequence[Edit]) -> dict[str, dict[str, int]]:
    """How often each option was chosen."""
    counts: dict[str, Counter[str]] = {}
    for edit in edits:
        for name, value in json.loads(edit.completion.text).items():
            counts.setdefault(name, Counter())[json.dumps(value)] += 1
    return {name: dict(counter.most_common()) for name, counter in counts.items()}


def _show(kind: str, data: dict[str, Any]) -> None:
    if kind == "round":
        say(f"round {data['round']}: mean reward {data['mean_reward']:.3f}, {data['verdict']}")
    elif kind == "warning":
        say(data["text"])


def pooled(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy with intervals over seeds and passages, and paired differences on the same passages."""
    arms, paired = {}, []
    for name in ARMS:
        found = bootstrap_seeds([list(one["arms"][name]["by_task"].values()) for one in seeds])
        tokens = fmean(one["arms"][name]["tokens"] for one in seeds)
        by_seed = [fmean(one["arms"][name]["by_task"].values()) for one in seeds]
        arms[name] = {"accuracy": found.mean, "low": found.low, "high": found.high, "tokens": tokens, "seeds": by_seed}
    for a, b in (
        ("trained", "default"),
        ("trained", "default_self_qa"),
        ("trained", "best_fixed"),
        ("trained", "random"),
        ("best_fixed", "default"),
    ):
        rows = [
            [
                x - one["arms"][b]["by_task"][task]
                for task, x in one["arms"][a]["by_task"].items()
                if task in one["arms"][b]["by_task"]
            ]
            for one in seeds
        ]
        found = bootstrap_seeds(rows)
        paired.append({"a": a, "b": b, "difference": found.mean, "low": found.low, "high": found.high})
    loops = {name: sum(one["inner_loops"][name] for one in seeds) for name in ("best_fixed", "trained")}
    return {"arms": arms, "paired": paired, "inner_loops": loops, "token_price": TOKEN_PRICE}


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds one after another, and write the result after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.directives", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[411, 412, 413])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--passages", type=int, default=10, help="training passages per round")
    parser.add_argument("--evaluation", type=int, default=120, help="held-out development passages")
    parser.add_argument("--set", default="{}", help="further settings, as JSON")
    parser.add_argument("--out", type=Path, default=Path("runs/directives"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    done: list[dict[str, Any]] = []
    for seed in asked.seeds:
        say(f"seed {seed}")
        settings = settings_for(seed, asked.rounds, asked.passages, asked.evaluation, json.loads(asked.set))
        done.append(one_seed(settings, asked.out / f"seed-{seed}"))
        result = {**pooled(done), "by_seed": done, "machine": describe()}
        for name, arm in result["arms"].items():
            say(f"{name:<11} {arm['accuracy']:.3f} [{arm['low']:.3f}, {arm['high']:.3f}] {arm['tokens']:.0f} tokens")
        for row in result["paired"]:
            say(f"{row['a']} - {row['b']}: {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")
        if asked.json:
            write_atomically(asked.json, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
