"""Which algorithm teaches a policy best, for the same number of inner loops.

    python -m benchmarks.algorithms --json algorithms.json

Every algorithm trains the embedded base's policy for 10 rounds of about 120 inner loops, and is measured on the same held-out
development passages of a seed before, half-way and at the end. A passage is asked all questions that it has. `paper` is the
published recipe: the single best of 5 edits by accuracy over 3 seeds; the others have 8 edits of one seed each for a passage
and the gold answers' log-likelihood as reward. The last policies of the winner and of the paper's recipe then write edits of test
passages, once (``--test``).

Every (algorithm, seed) is a run directory of its own under ``--out``: stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from selfedit.config import AlgorithmSettings, Settings, load_settings, make_settings
from selfedit.evaluation.experiment import run_experiment
from selfedit.report.charts import save
from selfedit.run import write_atomically
from selfedit.stats import Interval, bootstrap_seeds

from .machine import describe
from .turns import say

SEEDS = (201, 202, 203, 204, 205)
EDITS = {"per_task": 8}
PAPER = {
    "algorithm": {"name": "rest_em", "rank_by": ["gain"], "rest_em": {"keep": 1, "positive_only": False}},
    "edits": {"per_task": 5},
    "inner": {"seeds": 3},
}
ARMS: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    "rest_em": {"edits": EDITS, "algorithm": {"name": "rest_em"}},
    "reinforce": {"edits": EDITS, "algorithm": {"name": "reinforce"}},
    "grpo": {"edits": EDITS, "algorithm": {"name": "grpo"}},
    "ppo": {"edits": EDITS, "algorithm": {"name": "ppo"}},
}
LOOPS_A_ROUND = 120
_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7")  # Okabe and Ito's


def settings_for(arm: str, seed: int, rounds: int, tasks: int, loops: int = LOOPS_A_ROUND) -> Settings:
    """One arm's run: ``tasks`` held-out passages, asked after rounds 0, half and the last."""
    fields = ARMS[arm]
    a_task = fields["edits"]["per_task"] * fields.get("inner", {}).get("seeds", 1)
    return make_settings(
        {
            **fields,
            "seed": seed,
            "rounds": rounds,
            "tasks": {
                "per_round": max(1, loops // a_task),
                "dev": 12,
                "evaluation": tasks,
                "split": "dev",
                "probes_per_kind": 8,
            },
            "ladder": {"rungs": ["base_edits", "rounds"], "middle_rounds": [rounds // 2], "middle_tasks": tasks},
        }
    )


def run(out: Path, arm: str, seed: int, **how: Any) -> dict[str, Any]:
    """The summary of one run, made or gone on with where it is not finished."""
    return run_experiment(settings_for(arm, seed, **how), _directory(out, arm, seed))


def look(out: Path, arm: str, seed: int, tasks: int) -> dict[str, Any]:
    """The summary of what a finished run's last policy is worth on ``tasks`` test passages."""
    directory = _directory(out, arm, seed)
    settings = load_settings(
        directory / "config.toml",
        rounds=0,
        tasks={"split": "test", "evaluation": tasks},
        ladder={"middle_rounds": []},
        protocol={"policy": str(directory)},
    )
    return run_experiment(settings, directory.with_name(f"{arm}-test-seed-{seed}"))


def _directory(out: Path, arm: str, seed: int) -> Path:
    return out / f"{arm}-dev-seed-{seed}"


def _rung(number: int) -> str:
    return f"round_{number}" if number else "base_edits"


def by_round(summaries: Sequence[Mapping[str, Any]], rounds: Sequence[int]) -> list[dict[str, float]]:
    """Accuracy after these rounds, over seeds and passages."""
    found = {n: bootstrap_seeds([list(s["per_task"][_rung(n)].values()) for s in summaries]) for n in rounds}
    return [{"round": n, "accuracy": row.mean, "low": row.low, "high": row.high} for n, row in found.items()]


def by_seed(summaries: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Accuracy of every rung, a row for each seed."""
    return [[row["accuracy"] for row in summary["ladder"]] for summary in summaries]


def measured(summaries: Sequence[Mapping[str, Any]], rounds: int) -> dict[str, Any]:
    """One algorithm's figures over its seeds."""
    return {
        "rounds": by_round(summaries, (0, rounds // 2, rounds)),
        "seconds": sum(s["timing"]["total_seconds"] for s in summaries) / len(summaries),
        "seeds": [s["seed"] for s in summaries],
        "by_seed": by_seed(summaries),
        "verdicts": [[row["verdict"] for row in s["rounds"][1:]] for s in summaries],
        "mean_rewards": [[row["mean_reward"] for row in s["rounds"][1:]] for s in summaries],
        "reliability": reliability(summaries),
    }


def reliability(summaries: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of signal in what edits were ranked by, from the variances of all runs; None where nothing was measured."""
    rows = [s["reliability"] for s in summaries if s["reliability"]["var_between"] is not None]
    observed = sum(row["var_observed"] for row in rows)
    return sum(row["var_between"] for row in rows) / observed if observed else None


def rounds_chart(made: Mapping[str, Any]) -> alt.LayerChart:
    """Accuracy by round of each algorithm, with its intervals."""
    values = [
        {"algorithm": name, **row, "round": row["round"] + (i - len(made["algorithms"]) / 2) / 20}  # bars stay apart
        for i, (name, found) in enumerate(made["algorithms"].items())
        for row in found["rounds"]
    ]
    names = list(made["algorithms"])
    last = values[-1]["round"]
    x = alt.X("round:Q", title="Round", axis=alt.Axis(tickMinStep=1, grid=False))
    x = x.scale(domain=[-last / 30, last * 31 / 30], nice=False)
    y = alt.Y("accuracy:Q", title="Held-out questions answered right", axis=alt.Axis(format=".0%"))
    colour = alt.Color("algorithm:N", scale=alt.Scale(domain=names, range=_COLOURS[: len(names)]), title=None)
    data = alt.Chart(alt.InlineData(values=values)).encode(x=x, y=y.scale(zero=False), color=colour)
    bars = data.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q").scale(zero=False), y2="high:Q")
    return alt.layer(data.mark_line(strokeWidth=2, point=True), bars).properties(width=520, height=300)


def difference(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], last: str) -> Interval:
    """Accuracy of the last round, ours less theirs, on the same tasks of each seed; the interval over seeds and tasks."""
    pairs = zip(ours, theirs, strict=True)
    return bootstrap_seeds([[a["per_task"][last][t] - b["per_task"][last][t] for t in a["per_task"][last]] for a, b in pairs])


def measure(out: Path, arms: Sequence[str], seeds: Sequence[int], test: int, **how: Any) -> dict[str, Any]:
    """The comparison on development tasks and, if asked for, the one look at ``test`` tasks of each seed."""
    rounds = how["rounds"]
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for seed in seeds:  # seed by seed: a comparison that was stopped early is a fair one of fewer seeds
        for arm in arms:
            found[arm].append(run(out, arm, seed, **how))
            last = found[arm][-1]["ladder"][-1]["accuracy"]
            say(f"{arm}, seed {seed}: {found[arm][-1]['ladder'][0]['accuracy']:.3f} -> {last:.3f}")
    table = {arm: measured(summaries, rounds) for arm, summaries in found.items()}
    winner = max((arm for arm in arms if arm != "paper"), key=lambda arm: float(table[arm]["rounds"][-1]["accuracy"]))
    made: dict[str, Any] = {
        "machine": describe(),
        "algorithms": table,
        "winner": winner,
        "how": {**how, "seeds": list(seeds)},
    }
    if "paper" in arms:
        against = {arm: _row(difference(found[arm], found["paper"], _rung(rounds))) for arm in arms if arm != "paper"}
        made["against_paper"] = against
        default = name if (name := AlgorithmSettings().name) in table else winner
        made["reliability"] = {"paper": table["paper"]["reliability"], "default": table[default]["reliability"]}
    if test:
        looks = {arm: [look(out, arm, seed, test) for seed in seeds] for arm in (winner, "paper")}
        made["test"] = {
            **_row(difference(looks[winner], looks["paper"], _rung(rounds))),
            "tasks": test,
            "rounds": {arm: by_round(summaries, (0, rounds)) for arm, summaries in looks.items()},
            "by_seed": {arm: by_seed(summaries) for arm, summaries in looks.items()},
        }
    return made


def _row(interval: Interval) -> dict[str, float]:
    return {"difference": interval.mean, "low": interval.low, "high": interval.high}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.algorithms", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the numbers go")
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"), help="directory of the runs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=48, help="held-out passages of each seed")
    parser.add_argument("--loops", type=int, default=LOOPS_A_ROUND, help="inner loops a round")
    parser.add_argument("--chart", type=Path, help="accuracy by round as a picture, .svg or .png")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="then the one look at N test passages of each seed")
    asked = parser.parse_args(arguments)
    how = {"rounds": asked.rounds, "tasks": asked.tasks, "loops": asked.loops}
    made = measure(asked.out, asked.arms, asked.seeds, asked.test, **how)
    write_atomically(asked.json, json.dumps(made, indent=1) + "\n")
    if asked.chart:
        save(rounds_chart(made), asked.chart)
    print(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
