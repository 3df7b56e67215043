"""The tables of docs/real-models.md: the whole loop on real text, a 7B model's edits, and speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfedit.report.words import count, decimal, points, rung_label

Made = Mapping[str, Any]
_NAMES = {
    "one_edit": "one edit by the 7B model",
    "best_of_5": "best of its 5 edits, by the small learner",
    "facts": "self-edits, prompt `facts`",
    "samples": "self-edits, three samples",
}
_SCORES = {
    "logprob": "gold answers' log-likelihood per token",
    "probability": "gold answers' probability per token (the default)",
    "log_share": "log of their share among the passage's answers",
    "share": "their share among the passage's answers",
    "f1": "F1",
    "exact": "exact match",
    "contained": "answer contained",
    "right": "offline grader",
}
_GRADES = {"right": "offline grader, %", "contained": "contained, %", "f1": "F1, %", "exact": "exact, %"}


def _name(rung: str) -> str:
    return _NAMES.get(rung) or rung_label(rung)


def _percent(row: Made) -> str:
    return f"{100 * row['mean']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _points(row: Made) -> str:
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def _nats(row: Made) -> str:
    return f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _measured(rows: list[Made]) -> list[list[str]]:
    made = [["prepared with", *_GRADES.values(), "log p", "probability, %", "passages"]]
    for row in rows:
        dense = [decimal(row["logprob"]["mean"], 2), f"{100 * row['probability']['mean']:.1f}"]
        made.append([_name(row["rung"]), *(_percent(row[grade]) for grade in _GRADES), *dense, count(row["n_passages"])])
    return made


def _differing(rows: list[Made]) -> list[list[str]]:
    made = [["difference, on the same passages", *(f"{name.split(',')[0]}, points" for name in _GRADES.values()), "log p"]]
    for row in rows:
        shares = (_points(row[grade]) for grade in _GRADES)
        made.append([f"{_name(row['a'])} - {_name(row['b'])}", *shares, _nats(row["logprob"])])
    return made


def real_ladder(made: Made) -> list[list[str]]:
    """Every rung of the whole loop by every measure."""
    return _measured(made["ladder"])


def real_brief(made: Made) -> list[list[str]]:
    """The rungs that a new user wants to see."""
    rungs = {row["rung"]: row for row in made["ladder"]}
    last = next(name for name in reversed(rungs) if name.startswith("round_"))
    table = [["prepared with", "right, % [95 %]", "F1, %"]]
    for name in ("no_edit", "passage_only", "base_edits", last, "in_context"):
        table.append([_name(name), _percent(rungs[name]["right"]), f"{100 * rungs[name]['f1']['mean']:.1f}"])
    return table


def real_paired(made: Made) -> list[list[str]]:
    """Its differences."""
    return _differing(made["paired"])


def logged_ladder(made: Made) -> list[list[str]]:
    """What small models make of a 7B model's edits."""
    tables = {name: _measured(model["ladder"]) for name, model in made["models"].items()}
    head = next(iter(tables.values()))[0]
    return [["model", *head], *([name, *row] for name, table in tables.items() for row in table[1:])]


def logged_paired(made: Made) -> list[list[str]]:
    """Its differences."""
    tables = {name: _differing(model["paired"]) for name, model in made["models"].items()}
    head = next(iter(tables.values()))[0]
    return [["model", *head], *([name, *row] for name, table in tables.items() for row in table[1:])]


def logged_scores(made: Made) -> list[list[str]]:
    """How scores on half of a passage's questions agree with right answers to the other half."""
    models = made["models"]
    table = [["score", *(f"{name}: {what}" for name in models for what in ("all edits", "within passages"))]]
    rows = {name: {row["score"]: row for row in model["scores"]} for name, model in models.items()}
    for score, label in _SCORES.items():
        cells = [_correlation(rows[name][score][what]) for name in models for what in ("gains", "within")]
        table.append([label, *cells])
    return table


def logged_large(made: Made) -> list[list[str]]:
    """Whether a small learner's score ranks the edits as the 7B model's own accuracy does."""
    table = [["learner", "score", "correlation", "corrected", "7B, any edit, %", "7B, edit so chosen, %", "difference, points"]]
    for name, model in made["models"].items():
        for row in (model, *model["by_other_scores"]):
            chosen = row["chosen_accuracy_7b"]
            shares = (f"{100 * chosen[key]:.1f}" for key in ("random", "small_learner"))
            less = _points({"difference": chosen["small_learner_minus_random"], "low": chosen["low"], "high": chosen["high"]})
            found = row["correlation"]
            table.append([name, f"`{row['score']}`", _correlation(found), f"{found['corrected']:.2f}", *shares, less])
    return table


def _correlation(row: Made) -> str:
    return f"{row['raw']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if row["raw"] is not None else "none"


def speed(made: Made) -> list[list[str]]:
    """Seconds per edit of the engine and of one edit at a time, one row per model and loop."""
    table = [
        ["model", "loop", "engine, s per edit", "`lean`", "`trainer`", "same quality", "of the peak", "error", "equal answers"]
    ]
    for row in made["rows"]:
        seconds, ratios = row["seconds_per_edit"], row["ratios"]
        engine = ", ".join(f"K = {k}: {value:.2f}" for k, value in seconds["engine"].items())
        others = [f"{seconds[name]:.2f} ({ratios[name]:.2f} x)" for name in ("lean", "trainer")]
        quality = f"{ratios['same_quality']:.1f} x" if ratios.get("same_quality") else ""
        shares = (f"{row['peak_share']:.1%}", f"{row['max_rel_error']:.0e}", f"{row['tokens_equal']:.1%}")
        table.append([row["model"], row["loop"], f"{engine} ({row['dtype']['engine']})", *others, quality, *shares])
    return table
