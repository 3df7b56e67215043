"""Calibrate the offline grader on answers that a judge has graded, and compare it with plain string matching.

``python -m tools.calibrate_grader --data graded_answers.jsonl --out src/selfedit/assets/grader/grader.json``

A logistic regression (scikit-learn) says how many points a feature's value gives. Titles are split by their hash: 70 % of them
calibrate, by cross-validation over titles and then in all; ``--left-out`` also measures the others (each such look is to be
noted in docs/grader.md). The same data give the same table.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from selfedit.errors import TaskFileError
from selfedit.rewards.features import features
from selfedit.rewards.graded import Agreement, GradedAnswer, agreement, read_graded, title_hash
from selfedit.rewards.offline_grader import Points, decided
from selfedit.rewards.string_rules import exact_match, normalise, token_f1

SHARE, FOLDS = 0.7, 5
_STRENGTH = 0.5  # of the fit against the ridge penalty (scikit-learn's C)
_FEW, _MANY = (0.0, 0.3, 0.5, 0.7, 0.99), (0.0, 1.0, 2.0, 4.0)
CUTS: dict[str, tuple[float, ...]] = {
    "new gold words found": _FEW,
    "new gold words found in the first sentence": _FEW,
    "new gold names and numbers missing": _MANY,
    "other new gold words missing": _MANY,
    "new gold words": (1.0, 2.0, 4.0),
    "longest run of gold letters": (0.2, 0.3, 0.4, 0.5, 0.7, 0.99),
    "new gold trigrams found": (0.1, 0.2, 0.3, 0.5, 0.7, 0.99),
    "new words of the answer that are gold": (0.0, 0.1, 0.2, 0.4, 0.7, 0.99),
    "question words in the answer": (0.2, 0.4, 0.6, 0.8),
}

Match = Callable[[GradedAnswer], bool]


def calibrate(rows: Sequence[GradedAnswer]) -> tuple[float, dict[str, Points]]:
    """The log-odds to begin with, and every feature's points.

    Raises:
        ValueError: the verdicts on the rows that no rule decides are all alike.
    """
    rows = [row for row in rows if _measured(row)[0] is None]
    y = [row.correct for row in rows]
    if len(set(y)) < 2:
        raise ValueError("all answers have the same verdict; give right and wrong ones")
    # Whether each feature is above each of its cuts, shape (rows, cuts of all features).
    above = [[float(_measured(row)[1][name] > cut) for name, cuts in CUTS.items() for cut in cuts] for row in rows]
    model = LogisticRegression(C=_STRENGTH, max_iter=1000, tol=1e-8).fit(np.array(above), y)
    steps = iter(model.coef_[0].tolist())
    table = {}
    for name, cuts in CUTS.items():
        points = np.cumsum([0.0, *(next(steps) for _ in cuts)])
        table[name] = Points(cuts, tuple(round(float(p), 2) + 0.0 for p in points))
    return round(float(model.intercept_[0]), 2), table


@lru_cache(maxsize=1 << 15)
def _measured(row: GradedAnswer) -> tuple[bool | None, dict[str, float]]:
    """The verdict of the rules, None where they do not decide, and the features."""
    case = row.question, row.gold, row.prediction
    return decided(*case)[0], features(*case)


def _grader(rows: Sequence[GradedAnswer]) -> Match:
    base, table = calibrate(rows)

    def right(row: GradedAnswer) -> bool:
        ruled, values = _measured(row)
        return base + sum(table[name].of(value) for name, value in values.items()) >= 0 if ruled is None else ruled

    return right


def _best_f1(rows: Sequence[GradedAnswer]) -> Match:
    f1 = np.array([token_f1(row.prediction, [row.gold]) for row in rows])
    y = np.array([row.correct for row in rows])
    best = max((i / 100 for i in range(1, 101)), key=lambda threshold: float(np.mean((f1 >= threshold) == y)))
    return lambda row: token_f1(row.prediction, [row.gold]) >= best


RULES: dict[str, Callable[[Sequence[GradedAnswer]], Match]] = {
    "offline grader": _grader,
    "token F1, best threshold": _best_f1,
    "gold text in the answer": lambda _: lambda row: normalise(row.gold) in normalise(row.prediction),
    "exact match": lambda _: lambda row: exact_match(row.prediction, [row.gold]),
}


def cross_validated(rows: Sequence[GradedAnswer]) -> dict[str, Agreement]:
    """How well each of the rules agrees with the judge on titles of which it saw nothing."""
    titles = sorted({row.title for row in rows}, key=lambda title: title_share(title, "fold "))
    if len(titles) < FOLDS:
        raise ValueError(f"cross-validation needs answers on at least {FOLDS} titles; these are on {len(titles)}")
    fold_of = {title: i % FOLDS for i, title in enumerate(titles)}
    folds = [[row for row in rows if fold_of[row.title] == fold] for fold in range(FOLDS)]
    tested = [row for fold in folds for row in fold]
    found = {}
    for name, fitted in RULES.items():
        verdicts = []
        for i, fold in enumerate(folds):
            match = fitted([row for j, other in enumerate(folds) if j != i for row in other])
            verdicts += [match(row) for row in fold]
        found[name] = agreement(tested, verdicts)
    return found


def title_share(title: str, salt: str = "") -> float:
    """A number in [0, 1) that a title always gets, spread evenly over titles: for splits that need no list."""
    return int(hashlib.sha256((salt + title).encode()).hexdigest()[:8], 16) / 2**32


def table_of(rows: Sequence[GradedAnswer], **report: Any) -> dict[str, Any]:
    """The grader's table as JSON data, calibrated on ``rows``."""
    base, table = calibrate(rows)
    titles = sorted({title_hash(row.title) for row in rows})
    points = {name: {"cuts": p.cuts, "points": p.points} for name, p in table.items()}
    return {**report, "n": len(rows), "base": base, "table": points, "titles": titles}


def written(table: dict[str, Any]) -> str:
    """The table as JSON with one line per feature."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table["table"].items())
    entries = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items() if name != "table"]
    return "{\n" + ",\n".join([*entries, f' "table": {{\n{rows}\n }}']) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.calibrate_grader", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSONL of title, question, gold, prediction, correct")
    parser.add_argument("--out", type=Path, help="file to write the table to")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="date to write into the table")
    parser.add_argument("--left-out", action="store_true", help="also measure the titles that are left out")
    options = parser.parse_args(arguments)
    try:
        every = read_graded(options.data)
        rows, others = [[row for row in every if (title_share(row.title) < SHARE) is ours] for ours in (True, False)]
        measured = {f"{name} (cross-validated)": found for name, found in cross_validated(rows).items()}
        if options.left_out:
            for name, fitted in RULES.items():
                match = fitted(rows)
                measured[f"{name} (titles left out)"] = agreement(others, [match(row) for row in others])
        figures = {name: found.rounded() for name, found in measured.items()}
        sha256 = hashlib.sha256(options.data.read_bytes()).hexdigest()
        table = table_of(rows, date=options.date, data_sha256=sha256, figures=figures["offline grader (cross-validated)"])
    except (TaskFileError, ValueError) as error:
        parser.exit(2, f"calibrate_grader: {error}\n")
    for name, found in measured.items():
        print(
            f"{name:45} {found.agreement:.4f} [{found.low:.4f}, {found.high:.4f}]  kappa {found.kappa:.4f}  "
            f"n {found.n}  titles {found.titles}"
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(written(table), encoding="utf-8")


if __name__ == "__main__":
    main()
