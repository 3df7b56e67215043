"""`selfedit import-round`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from ..algorithms.base import Judged
    from ..edits.logged import LoggedRound


def import_round(
    file: Path,
    /,
    *,
    select: Annotated[Path | None, Parameter(show_default=False)] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", show_default=False)] = None,
) -> None:
    """Read a logged round of the public SEAL code: choose its best edits, and tell how much of its reward is noise.

    Such a round holds passages, several self-edits of each, and every edit's
    answers in several evaluations. The choice is the published one, made by the
    code that `selfedit run` uses: each passage's edit of the highest mean accuracy,
    of equals the first.

    For example:
      selfedit import-round round.json
      selfedit import-round round.json --select best.jsonl --json report.json

    Parameters
    ----------
    file
        The logged round, JSON with articles, completions and questions.
    select
        File for the chosen edits, {"prompt", "completion"} a line: what the
        policy is then fine-tuned on.
    json_file
        File for the figures: accuracies, variances, reliability, and the share
        of winners that gained nothing.
    """
    from ..edits.logged import read_round

    logged = read_round(file)
    winners, report = choose(logged)
    if select is not None:
        rows = [{"prompt": w.edit.prompt, "completion": w.edit.text} for w in winners]
        _write(select, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if json_file is not None:
        _write(json_file, json.dumps(report, indent=1, allow_nan=False) + "\n")
    for line in _told(report):
        print(line)


def choose(logged: LoggedRound) -> tuple[list[Judged], dict[str, Any]]:
    """The edits that the published recipe clones, and the round's figures; None where one can't be measured.

    ``seeds``: evaluations an edit, their mean where they differ. ``mean_accuracy`` and ``best_of_k_accuracy`` are means over
    passages (of the mean over its edits, and of its winner); ``winners_without_gain`` is a share of the winners.
    """
    from statistics import fmean, mean

    from ..algorithms.base import judge
    from ..algorithms.rest_em import select
    from ..config import make_settings
    from ..rewards.reliability import measure, values_of

    judged = judge(logged.edits, logged.outcomes)
    winners = select(judged, make_settings({"preset": "paper"}).algorithm)
    by_task = values_of(logged.edits, logged.outcomes, "reward")
    found = measure(by_task)
    by_passage: dict[str, list[float]] = {}
    for item in judged:
        if item.reward is not None:
            by_passage.setdefault(item.edit.task_id, []).append(item.reward)
    n_seeds = [len(values) for edits in by_task for values in edits if values]
    report = {
        "n_tasks": len(by_task),
        "n_edits": len(judged),
        "seeds": mean(n_seeds) if n_seeds else None,
        "var_within": found.var_within,
        "var_between_observed": found.var_observed,
        "reliability": found.reliability,
        "reliability_low": found.low,
        "reliability_high": found.high,
        "seeds_for_80": found.seeds_for_80,
        "winners_without_gain": _mean([_no_gain(w) for w in winners]) if logged.has_baseline else None,
        "mean_accuracy": _mean([fmean(rewards) for rewards in by_passage.values()]),
        "best_of_k_accuracy": _mean([w.reward for w in winners if w.reward is not None]),
    }
    return winners, report


def _no_gain(winner: Judged) -> bool:
    from ..edits.logged import DECIMALS

    # Accuracies were rounded before they were averaged: less than a unit of that is no gain.
    return winner.gain is None or winner.gain <= 10**-DECIMALS


def _mean(values: Sequence[float]) -> float | None:
    from statistics import fmean

    return fmean(values) if values else None


def _told(report: dict[str, Any]) -> Iterator[str]:
    """The figures in plain words."""
    from ..report.words import count, decimal, percent, reliability_line

    seeds = decimal(report["seeds"], 1).removesuffix(".0")
    yield f"{count(report['n_tasks'])} passages, {count(report['n_edits'])} self-edits, evaluations of each: {seeds}"
    yield (
        f"Mean accuracy {percent(report['mean_accuracy'])}, of each passage's best edit "
        f"{percent(report['best_of_k_accuracy'])}"
    )
    if report["winners_without_gain"] is not None:
        yield f"{percent(report['winners_without_gain'], 0)} of the best edits are no better than none"
    yield reliability_line(report) or "How much of the reward is noise can't be told from these evaluations"


def _write(path: Path, content: str) -> None:
    from ..errors import DiskError
    from ..run import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise DiskError(f"{path}: can't be written ({error.strerror}); make room, or choose another path") from None
