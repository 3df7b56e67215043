"""Calibrate the offline grader on graded answers: ``python -m selfedit.rewards.calibrate --data FILE --out FILE``.

Titles are split by their hash: 70 % calibrate, the others are held out. Sizes and features come from
cross-validation over the calibration titles; ``--held-out`` also measures the held-out ones (a look, to be counted). The
same data, options and date give the same file, byte for byte, on the same kind of processor (docs/grader.md).
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TaskFileError
from .boosting import Boosted, BoostingPlan, Floats, boost
from .features import Rarity, case_of, features
from .graded import Agreement, GradedAnswer, agreement, read_graded, title_hash, title_share
from .offline import Grader
from .reading import read
from .thesaurus import synonyms_sha256

SHARE, FOLDS = 0.7, 5


def calibrate(rows: Sequence[GradedAnswer], plan: BoostingPlan, held_out: bool = False) -> dict[str, Any]:
    """The grader's table, ready to be written as JSON.

    Raises:
        ValueError: fewer than two titles to calibrate on, or all their verdicts alike.
    """
    ours = [row for row in rows if title_share(row.title) < SHARE]
    titles = sorted({row.title for row in ours})
    if len(titles) < 2:
        raise ValueError(
            f"{len(titles)} of the titles calibrate; cross-validation needs at least two: give more titles"
        )
    rarity = _rarity(ours)
    names, x = _matrix(ours, rarity)
    y = np.array([row.correct for row in ours], dtype=float)
    odds = _cross_validated(x, y, [row.title for row in ours], plan)
    model = boost(x, y, plan)
    general = rarity("")
    figures = {"cross_validated": agreement(ours, (odds >= 0).tolist()).rounded()}
    if held_out:
        figures["held_out"] = _held_out(rows, names, general, model).rounded()
    return {
        "features": names,
        "base": model.base,
        "plan": asdict(plan),
        "n": len(ours),
        "figures": figures,
        "titles": [title_hash(title) for title in titles],
        "rarity": {"n": general.n, "counts": dict(sorted(general.counts.items()))},
        "trees": model.trees,
    }


def _held_out(rows: Sequence[GradedAnswer], names: list[str], rarity: Rarity, model: Boosted) -> Agreement:
    others = [row for row in rows if title_share(row.title) >= SHARE]
    if not others:
        raise ValueError("no title is held out; give more titles, or leave --held-out away")
    grader = Grader(tuple(names), rarity, model.base, model.trees)
    return agreement(others, [grader.grade(row.question, [row.gold], row.prediction).right for row in others])


def _rarity(rows: Sequence[GradedAnswer]) -> Callable[[str], Rarity]:
    """How rare words are among the questions with their golds and answers, but for those of the title that is given.

    A calibration row must not know its own title's words as known ones: those of a held-out title are unknown too.
    """
    texts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        texts[row.title, row.question] |= {
            word.stem for text in (row.question, row.gold, row.prediction) for word in read(text)
        }
    counts = Counter(stem for stems in texts.values() for stem in stems)
    own: dict[str, Counter[str]] = defaultdict(Counter)
    n_own = Counter(title for title, _ in texts)
    for (title, _), stems in texts.items():
        own[title].update(stems)
    made = {title: Rarity(len(texts) - n_own[title], counts - own[title]) for title in own}
    return lambda title: made[title] if title else Rarity(len(texts), counts)


def _matrix(rows: Sequence[GradedAnswer], rarity: Callable[[str], Rarity]) -> tuple[list[str], Floats]:
    """The features' names and their values (rows, features)."""
    measured = [features(case_of(row.question, row.gold, row.prediction, rarity(row.title))) for row in rows]
    return list(measured[0]), np.array([list(values.values()) for values in measured])


def _cross_validated(x: Floats, y: Floats, titles: Sequence[str], plan: BoostingPlan) -> Floats:
    """Each row's log-odds from trees that saw nothing of its title; (rows,)."""
    fold_of = {t: i % FOLDS for i, t in enumerate(sorted(set(titles), key=lambda t: title_share(t, "fold ")))}
    folds = np.array([fold_of[title] for title in titles])
    odds = np.zeros(len(y))
    for fold in sorted(set(folds.tolist())):
        out = folds == fold
        odds[out] = boost(x[~out], y[~out], plan).log_odds(x[out])
    return odds


def written(table: dict[str, Any]) -> str:
    """The table as JSON: a line for each entry and each tree, so that a change can be read."""
    entries = [f'"{name}": {json.dumps(value)}' for name, value in table.items() if name != "trees"]
    trees = ",\n".join(json.dumps(tree, separators=(",", ":")) for tree in table["trees"])
    return "{\n" + ",\n".join([*entries, f'"trees": [\n{trees}\n]']) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m selfedit.rewards.calibrate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSONL of title, question, gold, prediction, correct")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="date to write into the table")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trees")
    parser.add_argument("--held-out", action="store_true", help="measure the held-out titles, too")
    options = parser.parse_args(arguments)
    try:
        rows = read_graded(options.data)
        table = calibrate(rows, replace(BoostingPlan(), seed=options.seed), options.held_out)
    except (TaskFileError, ValueError) as error:
        parser.exit(2, f"calibrate: {error}\n")
    sha256 = hashlib.sha256(options.data.read_bytes()).hexdigest()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    read_with = {"data_sha256": sha256, "synonyms_sha256": synonyms_sha256()}
    options.out.write_text(written({"date": options.date, **read_with, **table}), encoding="utf-8")
    for name, figures in table["figures"].items():
        print(f"{name}: {figures}")


if __name__ == "__main__":
    main()
