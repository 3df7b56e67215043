"""What the padding of the published recipe changes: the presets `paper` and `clean` on the same passages and edits.

    python -m benchmarks.recipes --json recipes.json

Both presets as they are (SEAL's rules, LoRA on q and v, 10 epochs of single sequences), with the embedded base and lengths of
edits and answers that fit it. The base writes the same edits for both; what differs is that `paper` fills every sequence up, here
to the model's window of 512 tokens, and has the padding in the loss. Each is a run directory under ``--out``: stopped, the same
command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from selfedit.config import Settings, make_settings
from selfedit.evaluation.experiment import run_experiment
from selfedit.run import write_atomically
from selfedit.stats import bootstrap

from .machine import describe
from .turns import say

RECIPES = ("clean", "paper")


def settings_for(recipe: str, seed: int, passages: int) -> Settings:
    """The ladder without reinforcement learning, on held-out development passages."""
    return make_settings(
        {
            "preset": recipe,
            "seed": seed,
            "rounds": 0,
            "model": {"dtype": "auto"},
            "tasks": {"evaluation": passages, "dev": 24, "split": "dev", "probes_per_kind": 8},
            "edits": {"max_new_tokens": 176},
            "reward": {"max_answer_tokens": 16},
            "ladder": {
                "rungs": ["no_edit", "passage_only", "base_edits", "perfect_edits"],
                "passage_lr_factors": [1.0],  # the recipe's own rate
            },
        }
    )


def compared(summaries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every rung's accuracy and trained tokens with both recipes, and `paper` less `clean` on the same passages."""
    rungs = {name: {row["rung"]: row for row in made["ladder"]} for name, made in summaries.items()}
    rows = []
    for rung in rungs["clean"]:
        ours, theirs = (summaries[name]["per_task"][rung] for name in RECIPES)
        less = bootstrap([theirs[task] - ours[task] for task in ours])
        row: dict[str, Any] = {"rung": rung, "n_tasks": len(ours)}
        for name in RECIPES:
            row[name] = {key: rungs[name][rung][key] for key in ("accuracy", "low", "high", "steps", "trained_tokens")}
        rows.append(row | {"difference": less.mean, "low": less.low, "high": less.high})
    return rows


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"), help="directory of the runs")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--passages", type=int, default=12, help="held-out passages")
    asked = parser.parse_args(arguments)
    summaries = {}
    for name in RECIPES:
        settings = settings_for(name, asked.seed, asked.passages)
        summaries[name] = run_experiment(settings, asked.out / f"{name}-seed-{asked.seed}")
        say(f"{name}: " + ", ".join(f"{row['rung']} {row['accuracy']:.3f}" for row in summaries[name]["ladder"]))
    seconds = {name: made["timing"]["total_seconds"] for name, made in summaries.items()}
    made = {"machine": describe(), "seed": asked.seed, "seconds": seconds, "recipes": compared(summaries)}
    write_atomically(asked.json, json.dumps(made, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
