"""What the trials of `benchmarks.logged_edits` say: a ladder, dense scores compared, and a small learner against a 7B model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfedit import stats
from selfedit.rewards.reliability import measure as reliability

Question = Mapping[str, Any]
Way = Sequence[Question]  # the questions of a passage as one way of preparing the model left them
GRADES = ("f1", "exact", "contained", "right")


def gold_logprob(question: Question) -> float:
    """Mean log p of the gold answer's tokens (nats), without the stop."""
    return fmean(question["gold"][:-1] or question["gold"])


def gold_share(question: Question) -> float:
    """The gold answer's share (0..1) among the passage's gold answers (each by its log p per token)."""
    values = [gold_logprob(question), *(total / max(1, n) for total, n in question["others"])]
    return 1 / sum(math.exp(value - values[0]) for value in values)


SCORES: dict[str, Callable[[Question], float]] = {
    "logprob": gold_logprob,
    "probability": lambda q: math.exp(gold_logprob(q)),
    "log_share": lambda q: math.log(gold_share(q)),
    "share": gold_share,
}


def value(way: Way, name: str) -> float:
    """The mean of a score, or of a grade, over questions."""
    return fmean(SCORES[name](question) if name in SCORES else float(question[name]) for question in way)


def halves(way: Way) -> list[tuple[Way, Way]]:
    """Even questions and odd ones, in both orders; none of a passage with one question."""
    both = way[::2], way[1::2]
    return [both, both[::-1]] if both[1] else []


def passages(trials: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, list[Way]]]:
    """Of each passage the ways by name (edits by their number), a value a seed; ways that failed are left out."""
    found: dict[int, dict[str, list[Way]]] = {}
    for row in trials:
        for name, way in row["ways"].items():
            if way["questions"]:
                found.setdefault(row["passage"], {}).setdefault(name, []).append(way["questions"])
    return found


def edits_of(ways: Mapping[str, list[Way]]) -> dict[int, list[Way]]:
    """The ways that are edits."""
    return {int(name): seeds for name, seeds in ways.items() if name.isdigit()}


def chosen(ways: Mapping[str, list[Way]], by: str) -> list[Way]:
    """For both halves of the questions and every seed: the edit that is best by ``by`` on one half, asked the other half."""
    edits = edits_of(ways)
    picks = []
    for seed in range(min(map(len, edits.values()))):
        split = {k: halves(seeds[seed]) for k, seeds in edits.items()}
        for turn in range(min(map(len, split.values()))):
            best = max(sorted(split), key=lambda k: value(split[k][turn][0], by))
            picks.append(split[best][turn][1])
    return picks


def ladder(found: Mapping[int, Mapping[str, list[Way]]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every rung with every measure, and paired differences, over the passages that have all rungs."""
    rungs: dict[str, Callable[[Mapping[str, list[Way]]], list[Way]]] = {
        "no_edit": lambda ways: ways["no_edit"],
        "passage_only": lambda ways: ways["passage_only"],
        "one_edit": lambda ways: [way for seeds in edits_of(ways).values() for way in seeds],
        "best_of_5": lambda ways: chosen(ways, "probability"),
        "in_context": lambda ways: ways["in_context"],
    }
    whole = [w for w in found.values() if {"no_edit", "passage_only", "in_context", "0"} <= set(w) and chosen(w, "probability")]
    measures = ("logprob", "probability", "share", *GRADES)
    values = {
        rung: {m: [fmean(value(way, m) for way in ways_of(ways)) for ways in whole] for m in measures}
        for rung, ways_of in rungs.items()
    }
    rows: list[dict[str, Any]] = [
        {"rung": rung, "n_passages": len(whole), **{m: stats.as_row(stats.bootstrap(v)) for m, v in by.items()}}
        for rung, by in values.items()
    ]
    pairs = [("passage_only", "no_edit"), ("one_edit", "passage_only"), ("best_of_5", "one_edit"), ("in_context", "one_edit")]
    paired: list[dict[str, Any]] = [
        {"a": a, "b": b, **{m: stats.as_row(stats.bootstrap(_less(values[a][m], values[b][m])), "difference") for m in measures}}
        for a, b in pairs
    ]
    return rows, paired


def _less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def scores_compared(found: Mapping[int, Mapping[str, list[Way]]]) -> list[dict[str, Any]]:
    """For each score: how it agrees, on one half of the questions, with the offline grader's verdicts on the other.

    ``within``: correlation between a passage's edits. ``gains``: correlation of the gains over no edit, of all edits and raw
    passages. ``chosen``: the grades, on the other half, of the edit that is best by it on one half.
    """
    some = [ways for ways in found.values() if len(edits_of(ways)) > 1 and chosen(ways, "probability")]
    rows: list[dict[str, Any]] = []
    for name in (*SCORES, *GRADES):
        within, gains = [], []
        for ways in some:
            edits = [_sides(seeds[0], name) for seeds in edits_of(ways).values()]
            base = _sides(ways["no_edit"][0], name)
            more = edits + [_sides(seeds[0], name) for way, seeds in ways.items() if way == "passage_only"]
            turns = range(len(base))
            within.append(_added([_sums(*(_centred([e[turn][i] for e in edits]) for i in (0, 1))) for turn in turns]))
            gains.append(_added([_sums(*([e[turn][i] - base[turn][i] for e in more] for i in (0, 1))) for turn in turns]))
        rows.append({"score": name, "within": _correlation(within), "gains": _correlation(gains)})
        rows[-1]["chosen"] = _graded([chosen(ways, name) for ways in some])
    every = _graded([[way for seeds in edits_of(ways).values() for way in seeds] for ways in some])
    return [*rows, {"score": "random", "within": None, "gains": None, "chosen": every}]


def _graded(picks: Sequence[list[Way]]) -> dict[str, Any]:
    """Every grade's mean over passages of the mean over their picks, with its interval."""
    return {g: stats.as_row(stats.bootstrap([fmean(value(way, g) for way in ways) for ways in picks])) for g in GRADES}


def _sides(way: Way, name: str) -> list[tuple[float, float]]:
    """The score on one half of the questions and the share that is right on the other, in both orders."""
    return [(value(a, name), value(b, "right")) for a, b in halves(way)]


def _added(sums: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(sum, zip(*sums, strict=True)))


def _centred(values: Sequence[float]) -> list[float]:
    mean = fmean(values)
    return [v - mean for v in values]


def _sums(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    pairs = list(zip(a, b, strict=True))
    return sum(x * y for x, y in pairs), sum(x * x for x, _ in pairs), sum(y * y for _, y in pairs)


def _correlation(sums: Sequence[tuple[float, ...]]) -> dict[str, float | None]:
    """A correlation from each passage's sums of products and squares, with its bootstrap interval over passages."""

    def of(parts: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(parts[..., 0] / np.sqrt(parts[..., 1] * parts[..., 2]))

    array = np.asarray(sums, dtype=float)
    raw, drawn = float(of(array.sum(0))), of(stats.resampled_sums(array))
    if not math.isfinite(raw):
        return {"raw": None, "low": None, "high": None}
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return {"raw": raw, "low": float(low), "high": float(high)}


def against_large(
    found: Mapping[int, Mapping[str, list[Way]]], correct: Mapping[int, Sequence[Sequence[float]]], by: str
) -> dict[str, Any]:
    """A small learner's score beside the large model's accuracies ``correct[passage][edit][seed]`` after learning the same edits.

    ``corrected`` divides by the root of both reliabilities (of the large model's alone, where the small one has one seed).
    ``own_argmax`` is the large model's best edit by the same trials that value it; ``own_argmax_apart`` by its other seeds.
    """
    sums, small, large = [], [], []
    picked: dict[str, list[float]] = {name: [] for name in ("random", "small_learner", "own_argmax", "own_argmax_apart")}
    for number, ways in found.items():
        edits = edits_of(ways)
        rows = [[value(way, by) for way in edits[k]] for k in edits]
        theirs = [list(correct[number][k]) for k in edits]
        if len(edits) < 2:
            continue
        ours, means = [fmean(row) for row in rows], [fmean(row) for row in theirs]
        sums.append(_sums(_centred(ours), _centred(means)))
        small.append(rows)
        large.append(theirs)
        picked["random"].append(fmean(means))
        picked["small_learner"].append(means[ours.index(max(ours))])
        picked["own_argmax"].append(max(means))
        picked["own_argmax_apart"] += [_apart(theirs)] if min(map(len, theirs)) > 1 else []
    found_correlation = _correlation(sums)
    reliabilities = {"small": reliability(small).reliability, "large": reliability(large).reliability}
    known = [r for r in reliabilities.values() if r]
    corrected = found_correlation["raw"]
    if corrected is not None and known:
        corrected /= math.sqrt(math.prod(known))
    gain = stats.bootstrap(_less(picked["small_learner"], picked["random"]))
    return {
        "n_passages": len(sums),
        "score": by,
        "correlation": found_correlation | {"corrected": corrected, "reliability": reliabilities},
        "chosen_accuracy_7b": {name: fmean(values) for name, values in picked.items() if values}
        | stats.as_row(gain, "small_learner_minus_random"),
    }


def _apart(theirs: Sequence[Sequence[float]]) -> float:
    """The accuracy with each seed of the edit that is best by the other seeds."""
    got = []
    for seed in range(min(map(len, theirs))):
        others = [fmean(v for n, v in enumerate(row) if n != seed) for row in theirs]
        got.append(theirs[others.index(max(others))][seed])
    return fmean(got)
