"""Several runs that differ in their seed alone, as one result: means over seeds and tasks, with intervals over both."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..config import MACHINE_FIELDS, REACHING_FIELDS, differing_fields
from ..errors import RunError
from ..rows import Interval, PooledPairedRow, PooledRungRow, RunFigures
from ..stats import as_row, bootstrap_seeds, ratio_seeds
from ..summary import SCHEMA_VERSION, PooledSummary, Summary

# Seeds may have run on different machines, or at different times, and have reached the same judge in another way.
_MAY_DIFFER = (
    "seed",
    *(f"{model}.{name}" for model in ("model", "learner") for name in MACHINE_FIELDS),
    *(f"reward.judge.{name}" for name in REACHING_FIELDS),
)


def pool(summaries: Sequence[Summary]) -> PooledSummary:
    """One result of the runs' summaries: ``ladder`` and ``paired`` as in each of them, ``seeds`` with the figures of each.

    Raises:
        RunError: there are none, two have the same seed, or the runs differ in more than the seed.
    """
    if not summaries:
        raise RunError("no runs to pool; give the directories of finished runs")
    first, seeds = summaries[0], [summary.seed for summary in summaries]
    if len(set(seeds)) < len(seeds):
        raise RunError(f"two runs have the same seed ({', '.join(map(str, seeds))}); pool runs of different seeds")
    for other in summaries[1:]:
        fields = [f for f in differing_fields(first.settings, other.settings) if f not in _MAY_DIFFER]
        hashes = ("base_sha256_before", "learner_sha256_before")
        fields += [name for name in hashes if getattr(first, name) != getattr(other, name)]
        if fields:
            raise RunError(
                f"seeds {seeds[0]} and {other.seed} differ in {', '.join(fields)}; pool runs that differ in their seed alone"
            )
    missing = _missing_rungs(summaries)
    learner = {"learner_sha256": first.learner_sha256_before} if first.learner_sha256_before else {}
    # The pairs that any of the runs compares: a run that could grade too few tasks of a rung lacks its pairs.
    pairs = dict.fromkeys((row.a, row.b) for summary in summaries for row in summary.paired)
    return PooledSummary(
        schema_version=SCHEMA_VERSION,
        ladder=tuple(_pooled_rung(summaries, row.rung, row.steps) for row in first.ladder if row.rung not in missing),
        paired=tuple(_pooled_pair(summaries, a, b) for a, b in pairs if not {a, b} & missing.keys()),
        share_of_possible=_share_of_possible(summaries),
        seeds=tuple(RunFigures(**{name: getattr(s, name) for name in RunFigures.model_fields}) for s in summaries),
        settings={k: v for k, v in first.settings.items() if k != "seed"},
        base_sha256=first.base_sha256_before,
        selfedit_version=first.selfedit_version,
        notes=(
            *sorted({note for summary in summaries for note in summary.notes}),
            *_machine_notes(summaries),
            *(f"The rung {rung} is left out: the run of seed {seeds} does not have it." for rung, seeds in missing.items()),
        ),
        **learner,
    )


def _missing_rungs(summaries: Sequence[Summary]) -> dict[str, str]:
    """Rungs that not all of the runs have, with the seeds that lack them."""
    have = {summary.seed: [row.rung for row in summary.ladder] for summary in summaries}
    rungs = dict.fromkeys(rung for own in have.values() for rung in own)
    lacking = {rung: [str(seed) for seed, own in have.items() if rung not in own] for rung in rungs}
    return {rung: ", ".join(seeds) for rung, seeds in lacking.items() if seeds}


def _machine_notes(summaries: Sequence[Summary]) -> list[str]:
    """What to know where the seeds were not computed alike."""
    models = [model for model in ("model", "learner") if summaries[0].setting(model)]
    used = {
        f"{model}.{name}": sorted({str(s.setting(f"{model}.{name}")) for s in summaries})
        for model in models
        for name in ("dtype", "device")
    }
    return [f"The seeds were computed in different ways ({name}: {', '.join(u)})." for name, u in used.items() if u[1:]]


def _pooled_rung(summaries: Sequence[Summary], rung: str, steps: int) -> PooledRungRow:
    """A rung over the seeds in which some of its tasks could be graded (``n_seeds``)."""
    own = [next(row for row in s.ladder if row.rung == rung) for s in summaries]
    by_seed = [values for s in summaries if (values := list(s.per_task[rung].values()))]
    return PooledRungRow(
        rung=rung,
        **as_row(bootstrap_seeds(by_seed) if by_seed else None, "accuracy"),
        n_seeds=len(by_seed),
        n_tasks=sum(row.n_tasks for row in own),
        n_probes=sum(row.n_probes for row in own),
        failed_edits=sum(row.failed_edits for row in own),
        ungraded_tasks=sum(row.ungraded_tasks for row in own),
        steps=steps,
        trained_tokens=round(sum(row.trained_tokens for row in own) / len(own)),
    )


def _differences(summaries: Sequence[Summary], a: str, b: str, tasks_of: str = "") -> list[list[float]]:
    """Accuracy of a minus b on every task that both rungs have (and ``tasks_of``, if given), by seed; may be empty."""
    return [
        [x - rungs[b][task] for task, x in rungs[a].items() if task in rungs[b] and (not tasks_of or task in rungs[tasks_of])]
        for rungs in (summary.per_task for summary in summaries)
    ]


def _pooled_pair(summaries: Sequence[Summary], a: str, b: str) -> PooledPairedRow:
    by_seed = _differences(summaries, a, b)
    known = [row for row in by_seed if row]
    difference = as_row(bootstrap_seeds(known) if known else None, "difference")
    return PooledPairedRow(a=a, b=b, **difference, by_seed=tuple(fmean(row) if row else None for row in by_seed))


def _share_of_possible(summaries: Sequence[Summary]) -> Interval | None:
    """(last round - base edits) / (perfect edits - base edits): how much of the gain that better edits allow RL reached."""
    rungs = [row.rung for row in summaries[0].ladder if row.rung not in _missing_rungs(summaries)]
    rounds = [rung for rung in rungs if rung.startswith("round_")]
    if not rounds or not {"base_edits", "perfect_edits"} <= set(rungs):
        return None
    # On the tasks that all three have, so that both differences are taken at the same ones.
    above = _differences(summaries, rounds[-1], "base_edits", "perfect_edits")
    below = _differences(summaries, "perfect_edits", "base_edits", rounds[-1])
    if not any(above):  # and below is as long
        return None
    found = ratio_seeds([row for row in above if row], [row for row in below if row])
    return Interval(**as_row(found)) if found else None
