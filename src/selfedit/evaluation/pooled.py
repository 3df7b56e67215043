"""Several runs that differ in their seed alone, as one result: means over seeds and tasks, with both in the interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import MACHINE_FIELDS, differing_fields
from ..errors import RunError
from ..stats import bootstrap_seeds, ratio_seeds

Summary = Mapping[str, Any]
# Seeds may have met another machine, or another hour of it.
_MAY_DIFFER = ("seed", *(f"model.{name}" for name in MACHINE_FIELDS))
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
        fields += [f for f in ("base_sha256_before",) if first[f] != other[f]]
        if fields:
            raise RunError(f"seeds {seeds[0]} and {other['seed']} differ in {', '.join(fields)}: not one experiment")
    return {
        "ladder": [_pooled_rung(summaries, row) for row in first["ladder"]],
        "paired": [_pooled_pair(summaries, row) for row in first["paired"]],
        "share_of_possible": _share_of_possible(summaries),
        "seeds": [{key: summary[key] for key in _KEPT} for summary in summaries],
        "settings": {k: v for k, v in first["settings"].items() if k != "seed"},
        "base_sha256": first["base_sha256_before"],
        "selfedit_version": first["selfedit_version"],
        "notes": sorted({note for summary in summaries for note in summary["notes"]}) + _machine_notes(summaries),
    }


def _machine_notes(summaries: Sequence[Summary]) -> list[str]:
    """What to know where the seeds were not computed alike."""
    used = {name: sorted({str(s["settings"]["model"][name]) for s in summaries}) for name in ("dtype", "device")}
    return [f"The seeds were computed in different ways ({name}: {', '.join(u)})." for name, u in used.items() if u[1:]]


def _pooled_rung(summaries: Sequence[Summary], row: Mapping[str, Any]) -> dict[str, Any]:
    rung = row["rung"]
    own = [next(r for r in s["ladder"] if r["rung"] == rung) for s in summaries]
    interval = bootstrap_seeds([list(s["per_task"][rung].values()) for s in summaries])
    return {
        "rung": rung,
        "accuracy": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n_seeds": len(own),
        **{name: sum(r[name] for r in own) for name in ("n_tasks", "n_probes", "failed_edits")},
        "steps": row["steps"],
        "trained_tokens": round(sum(r["trained_tokens"] for r in own) / len(own)),
    }


def _differences(summaries: Sequence[Summary], a: str, b: str) -> list[list[float]]:
    """Accuracy of a minus b on every task that both rungs have, by seed."""
    return [[x - s["per_task"][b][t] for t, x in s["per_task"][a].items() if t in s["per_task"][b]] for s in summaries]


def _pooled_pair(summaries: Sequence[Summary], row: Mapping[str, Any]) -> dict[str, Any]:
    a, b = row["a"], row["b"]
    found = bootstrap_seeds(_differences(summaries, a, b))
    own = [next(r for r in s["paired"] if (r["a"], r["b"]) == (a, b)) for s in summaries]
    return {
        "a": a,
        "b": b,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "by_seed": [r["difference"] for r in own],
    }


def _share_of_possible(summaries: Sequence[Summary]) -> dict[str, float] | None:
    """(last round - base edits) / (perfect edits - base edits): how much of what better edits could give RL gave."""
    rungs = [row["rung"] for row in summaries[0]["ladder"]]
    rounds = [rung for rung in rungs if rung.startswith("round_")]
    if not rounds or not {"base_edits", "perfect_edits"} <= set(rungs):
        return None
    above = _differences(summaries, rounds[-1], "base_edits")
    found = ratio_seeds(above, _differences(summaries, "perfect_edits", "base_edits"))
    return None if found is None else {"mean": found.mean, "low": found.low, "high": found.high}
