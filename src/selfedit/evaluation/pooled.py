"""Several runs that differ in their seed alone, as one result: means over seeds and tasks, with both in the interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..config import MACHINE_FIELDS, REACHING_FIELDS, differing_fields
from ..errors import RunError
from ..stats import bootstrap_seeds, ratio_seeds

Summary = Mapping[str, Any]
# Seeds may have met another machine, or another hour of it, and have reached the same judge in another way.
_MAY_DIFFER = (
    "seed",
    *(f"{model}.{name}" for model in ("model", "learner") for name in MACHINE_FIELDS),
    *(f"reward.judge.{name}" for name in REACHING_FIELDS),
)
_KEPT = ("seed", "ladder", "paired", "by_kind", "rounds", "verbatim_share", "settings_sha256", "timing")


def pool(summaries: Sequence[Summary]) -> dict[str, Any]:
    """One result of the runs' summaries: ``ladder`` and ``paired`` as in each of them, ``seeds`` with each one's own.

    Raises:
        RunError: there are none, a seed comes twice, or the runs differ in more than the seed.
    """
    if not summaries:
        raise RunError("no runs to pool; give the directories of finished runs")
    first, seeds = summaries[0], [summary["seed"] for summary in summaries]
    if len(set(seeds)) < len(seeds):
        raise RunError(f"a seed comes twice ({', '.join(map(str, seeds))}); pool runs of different seeds")
    for other in summaries[1:]:
        fields = [f for f in differing_fields(first["settings"], other["settings"]) if f not in _MAY_DIFFER]
        fields += [f for f in ("base_sha256_before", "learner_sha256_before") if first.get(f) != other.get(f)]
        if fields:
            raise RunError(f"seeds {seeds[0]} and {other['seed']} differ in {', '.join(fields)}: not one experiment")
    missing = _missing_rungs(summaries)
    return {
        "ladder": [_pooled_rung(summaries, row) for row in first["ladder"] if row["rung"] not in missing],
        "paired": [_pooled_pair(summaries, a, b) for a, b in _pairs(summaries) if not {a, b} & missing.keys()],
        "share_of_possible": _share_of_possible(summaries),
        "seeds": [{key: summary[key] for key in _KEPT} for summary in summaries],
        "settings": {k: v for k, v in first["settings"].items() if k != "seed"},
        "base_sha256": first["base_sha256_before"],
        **({"learner_sha256": first["learner_sha256_before"]} if "learner_sha256_before" in first else {}),
        "selfedit_version": first["selfedit_version"],
        "notes": sorted({note for summary in summaries for note in summary["notes"]})
        + _machine_notes(summaries)
        + [f"{rung} is left out: seed {seeds} has none." for rung, seeds in missing.items()],
    }


def _missing_rungs(summaries: Sequence[Summary]) -> dict[str, str]:
    """Rungs that not all of the runs have, with the seeds that lack them."""
    have = {summary["seed"]: [row["rung"] for row in summary["ladder"]] for summary in summaries}
    rungs = dict.fromkeys(rung for own in have.values() for rung in own)
    lacking = {rung: [str(seed) for seed, own in have.items() if rung not in own] for rung in rungs}
    return {rung: ", ".join(seeds) for rung, seeds in lacking.items() if seeds}


def _machine_notes(summaries: Sequence[Summary]) -> list[str]:
    """What to know where the seeds were not computed alike."""
    models = [model for model in ("model", "learner") if summaries[0]["settings"].get(model)]
    used = {
        f"{model}.{name}": sorted({str(s["settings"][model][name]) for s in summaries})
        for model in models
        for name in ("dtype", "device")
    }
    return [f"The seeds were computed in different ways ({name}: {', '.join(u)})." for name, u in used.items() if u[1:]]


def _pooled_rung(summaries: Sequence[Summary], row: Mapping[str, Any]) -> dict[str, Any]:
    """A rung over the seeds in which some of its tasks could be graded (``n_seeds``)."""
    rung = row["rung"]
    own = [next(r for r in s["ladder"] if r["rung"] == rung) for s in summaries]
    by_seed = [values for s in summaries if (values := list(s["per_task"][rung].values()))]
    summed = ("n_tasks", "n_probes", "failed_edits", "ungraded_tasks")
    return {
        "rung": rung,
        **_interval(by_seed, "accuracy"),
        "n_seeds": len(by_seed),
        **{name: sum(r.get(name, 0) for r in own) for name in summed},
        "steps": row["steps"],
        "trained_tokens": round(sum(r["trained_tokens"] for r in own) / len(own)),
    }


def _interval(by_seed: Sequence[Sequence[float]], name: str) -> dict[str, Any]:
    """The mean under ``name`` with its interval; None where there is nothing to take it of."""
    found = bootstrap_seeds(by_seed) if by_seed else None
    return {name: found and found.mean, "low": found and found.low, "high": found and found.high}


def _differences(summaries: Sequence[Summary], a: str, b: str, tasks_of: str = "") -> list[list[float]]:
    """Accuracy of a minus b on every task that both rungs have (and ``tasks_of``, if any), by seed; may be none."""
    return [
        [
            x - rungs[b][task]
            for task, x in rungs[a].items()
            if task in rungs[b] and (not tasks_of or task in rungs[tasks_of])
        ]
        for rungs in (summary["per_task"] for summary in summaries)
    ]


def _pairs(summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    """The pairs of rungs that any of the runs compares: one of which a run could grade too little is missing there."""
    return list(dict.fromkeys((row["a"], row["b"]) for summary in summaries for row in summary["paired"]))


def _pooled_pair(summaries: Sequence[Summary], a: str, b: str) -> dict[str, Any]:
    by_seed = _differences(summaries, a, b)
    return {
        "a": a,
        "b": b,
        **_interval([row for row in by_seed if row], "difference"),
        "by_seed": [fmean(row) if row else None for row in by_seed],
    }


def _share_of_possible(summaries: Sequence[Summary]) -> dict[str, float] | None:
    """(last round - base edits) / (perfect edits - base edits): how much of what better edits could give RL gave."""
    rungs = [row["rung"] for row in summaries[0]["ladder"] if row["rung"] not in _missing_rungs(summaries)]
    rounds = [rung for rung in rungs if rung.startswith("round_")]
    if not rounds or not {"base_edits", "perfect_edits"} <= set(rungs):
        return None
    # On the tasks that all three have, so that both differences are taken at the same ones.
    above = _differences(summaries, rounds[-1], "base_edits", "perfect_edits")
    below = _differences(summaries, "perfect_edits", "base_edits", rounds[-1])
    if not any(above):  # and below is as long
        return None
    found = ratio_seeds([row for row in above if row], [row for row in below if row])
    return None if found is None else {"mean": found.mean, "low": found.low, "high": found.high}
