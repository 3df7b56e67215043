"""`selfedit import-round`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, mean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from ..algorithms.base import RatedEdit
    from ..edits.parsing.logged import LoggedRound


def import_round(
    file: Path,
    /,
    *,
    select: Annotated[Path | None, Parameter(show_default=False)] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", show_default=False)] = None,
) -> None:
    """Read a logged round of the public SEAL code: choose its best edits, and estimate the noise in its reward.

    Such a round holds passages, several self-edits of each, and every edit's
    answers in several evaluations. The choice is the published one, made by the
    code that `selfedit run` uses: for each passage the edit of the highest mean
    accuracy (the stored adapter_mean, where there is one), and the first of
    several equal ones.

    For example:
      selfedit import-round round.json
      selfedit import-round round.json --select best.jsonl --json report.json

    Parameters
    ----------
    file
        The logged round: JSON with articles, completions and questions.
    select
        File for the chosen edits, one {"prompt", "completion"} per line. The
        published recipe fine-tunes its policy on these.
    json_file
        File for the figures: accuracies, variances, reliability, and the share
        of chosen edits that gained nothing.
    """
    from ..edits.parsing.logged import read_round
    from ..run import write_atomically
    from ..tasks.places import Place
    from .paths import check_file

    check_file(select, "--select")
    check_file(json_file, "--json")
    logged = read_round(file)
    winners, report = choose(logged)
    if not winners:
        Place(file).fail(
            f"none of the {len(logged.edits)} self-edits was evaluated (they have neither questions nor stats.adapter_mean)",
            "give a round that was evaluated; there is nothing to choose by",
        )
    if select is not None:
        rows = [{"prompt": w.edit.prompt, "completion": w.edit.text} for w in winners]
        write_atomically(select, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if json_file is not None:
        write_atomically(json_file, json.dumps(report, indent=1, allow_nan=False) + "\n")
    for line in _in_words(report):
        print(line)


def choose(logged: LoggedRound) -> tuple[list[RatedEdit], dict[str, Any]]:
    """The edits that the published recipe fine-tunes on, and the round's figures; None where one can't be measured.

    ``seeds``: evaluations per edit, their mean where they differ; None where only means are logged. ``n_tasks_without_choice``:
    passages none of whose edits was evaluated. ``mean_accuracy`` and ``best_of_k_accuracy`` are means over
    passages (of the mean over its edits, and of its winner); ``winners_without_gain`` is a share of the winners.
    """
    from ..algorithms.base import rate
    from ..algorithms.rest_em import select
    from ..config import make_settings
    from ..edits.parsing.logged import DECIMALS
    from ..rewards.reliability import measure, values_of

    # A stored mean is compared as it is: means that differ in their last bit alone are no tie for the published choice.
    rated = [replace(r, reward=logged.means.get(r.edit.id, r.reward)) for r in rate(logged.edits, logged.outcomes)]
    ranked_by = {"rank_by": ["reward"]}
    winners = select(rated, make_settings({"preset": "paper", "algorithm": ranked_by}).algorithm)
    by_task = values_of(logged.edits, logged.outcomes, "reward")
    found = measure(by_task)
    by_passage: dict[str, list[float]] = defaultdict(list)
    for item in rated:
        if item.reward is not None:
            by_passage[item.edit.task_id].append(item.reward)
    # Accuracies were rounded before they were averaged: less than a unit of that is no gain.
    without_gain = [winner.gain is None or winner.gain <= 10**-DECIMALS for winner in winners]
    report = {
        "n_tasks": len(by_task),
        "n_edits": len(rated),
        "n_tasks_without_choice": len(by_task) - len(winners),
        "seeds": mean(logged.n_evaluations) if logged.n_evaluations else None,
        "var_within": found.var_within,
        "var_between_observed": found.var_observed,
        "reliability": found.reliability,
        "reliability_low": found.low,
        "reliability_high": found.high,
        "seeds_for_80": found.seeds_for_80,
        "winners_without_gain": _mean(without_gain) if logged.has_baseline else None,
        "mean_accuracy": _mean([fmean(rewards) for rewards in by_passage.values()]),
        "best_of_k_accuracy": _mean([w.reward for w in winners if w.reward is not None]),
    }
    return winners, report


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _in_words(report: dict[str, Any]) -> Iterator[str]:
    from ..report.words import count, decimal, percent, reliability_line

    seeds = f"{decimal(report['seeds'], 1).removesuffix('.0')} evaluations per self-edit"
    if report["seeds"] is None:
        seeds = "of which only mean accuracies are logged"
    yield f"{count(report['n_tasks'])} passages, {count(report['n_edits'])} self-edits, {seeds}."
    if report["n_tasks_without_choice"]:
        yield f"For {count(report['n_tasks_without_choice'])} of the passages nothing is chosen: no self-edit was evaluated."
    best = percent(report["best_of_k_accuracy"])
    yield f"Mean accuracy: {percent(report['mean_accuracy'])} of all self-edits, {best} of each passage's best one."
    if report["winners_without_gain"] is not None:
        yield f"{percent(report['winners_without_gain'], 0)} of the best edits are no better than no edit."
    yield (
        reliability_line(report["reliability"], report["seeds_for_80"])
        or "Reliability can't be measured: it needs at least two edits per passage and two seeds per edit."
    )
