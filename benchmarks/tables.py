"""The tables of the documents, made from the published results.

    python -m benchmarks.tables            # writes them into the README, docs/ and benchmarks/
    python -m benchmarks.tables --check    # names the documents whose tables are not those of docs/results

A document marks the place of a table by a pair of lines: ``<!-- table ladder single.json -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import real_tables
from selfedit.report.arms import COLUMNS, cells
from selfedit.report.words import count, percent, points, rung_label
from selfedit.rows import ArmRow, LadderRow
from selfedit.summary import AnySummary, PooledSummary, Summary, read_summary

Table = list[Sequence[str]]
ROOT = Path(__file__).parents[1]
_DOCUMENTS = ("README.md", "docs/*.md", "benchmarks/README.md")
_PLACE = re.compile(r"(<!-- table (\w+) ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _share(accuracy: float | None, low: float | None, high: float | None) -> str:
    if accuracy is None or low is None or high is None:
        return "not graded"
    return f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _accuracy(row: LadderRow) -> str:
    return _share(row.accuracy, row.low, row.high)


def _difference(row: Mapping[str, Any]) -> str:
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def ladder(summary: AnySummary) -> Table:
    """One row per rung."""
    made: Table = [("prepared with", "accuracy, % [95 %]", "steps per passage", "tokens per passage", "passages")]
    for row in summary.ladder:
        made.append((rung_label(row.rung), _accuracy(row), *map(count, (row.steps, row.trained_tokens, row.n_tasks))))
    return made


def pooled(summary: PooledSummary) -> Table:
    """One row per rung, over several seeds and for each of them."""
    seeds = [{row.rung: row.accuracy for row in seed.ladder} for seed in summary.seeds]
    made: Table = [("prepared with", "accuracy, % [95 %]", "by seed", "passages")]
    for row in summary.ladder:
        by_seed = ", ".join(percent(seed[row.rung]).removesuffix(" %") for seed in seeds)
        made.append((rung_label(row.rung), _accuracy(row), by_seed, count(row.n_tasks)))
    return made


def paired(summary: AnySummary) -> Table:
    """Differences on the same passages, one row per pair of rungs."""
    made: Table = [("difference, on the same passages", "points [95 %]")]
    for row in summary.paired:
        made.append((f"{rung_label(row.a)} - {rung_label(row.b)}", _difference(row.to_dict())))
    return made


def merged(summary: Summary) -> Table:
    """The arms of a stream that end in one model."""
    return _arms(summary, lambda arm: arm.merge != "routed")


def routed(summary: Summary) -> Table:
    """The arms that keep edits separate."""
    return _arms(summary, lambda arm: arm.merge == "routed")


def _arms(summary: Summary, wanted: Callable[[ArmRow], bool]) -> Table:
    made: Table = [("arm", "streams", *COLUMNS)]
    made += [(f"`{name}`", str(arm.seeds), *cells(arm)) for name, arm in summary.arms.items() if wanted(arm)]
    return made


def matrix(summary: Summary) -> Table:
    """Accuracy on each passage of a short stream, right after its own edit and at the end; two rows per arm."""
    n = max(len(row) for arm in summary.arms.values() for row in arm.matrix.values())
    made: Table = [("arm", "asked", *(f"passage {i}" for i in range(1, n + 1)))]
    for name, arm in summary.arms.items():
        immediate = [arm.matrix[str(i)][i - 1] for i in range(1, n + 1)]
        for when, row in (("after its own edit", immediate), ("at the end", arm.matrix[str(n)])):
            made.append((f"`{name}`", when, *map(percent, row)))
    return made


def algorithms(made: Mapping[str, Any]) -> Table:
    """The comparison of algorithms, one per row."""
    found = made["algorithms"]
    numbers = [row["round"] for row in next(iter(found.values()))["rounds"]]
    against = made.get("against_paper", {})
    table: Table = [("algorithm", *(f"round {n}, %" for n in numbers), "minus the paper's, points", "minutes per run")]
    for name, arm in found.items():
        less = _difference(against[name]) if name in against else ""
        shares = (_share(row["accuracy"], row["low"], row["high"]) for row in arm["rounds"])
        table.append((f"`{name}`", *shares, less, f"{arm['seconds'] / 60:.0f}"))
    return table


def recipes(made: Mapping[str, Any]) -> Table:
    """The published recipe without its padding and with it, one row per rung."""
    table: Table = [("prepared with", "`clean`, % [95 %]", "`paper`", "`paper` - `clean`, points", "tokens per passage")]
    for row in made["recipes"]:
        both = [row[name] for name in ("clean", "paper")]
        shares = (_share(one["accuracy"], one["low"], one["high"]) for one in both)
        tokens = ", ".join(count(one["trained_tokens"]) for one in both)
        table.append((rung_label(row["rung"]), *shares, _difference(row), tokens))
    return table


_DIRECTIVES = {
    "default": "default recipe, implications",
    "default_self_qa": "default recipe, questions and answers",
    "random": "random",
    "best_fixed": "best fixed one of a random search",
    "trained": "chosen by the trained policy",
}


def directives(made: Mapping[str, Any]) -> Table:
    """The ways to choose how a passage is learned, one per row."""
    less = {row["b"]: _difference(row) for row in made["paired"] if row["a"] == "trained"}
    table: Table = [("directive", "accuracy, % [95 %]", "by seed", "tokens per passage", "trained - it, points [95 %]")]
    for name, arm in made["arms"].items():
        by_seed = ", ".join(percent(one).removesuffix(" %") for one in arm["seeds"])
        share = _share(arm["accuracy"], arm["low"], arm["high"])
        table.append((_DIRECTIVES[name], share, by_seed, count(arm["tokens"]), less.get(name, "")))
    return table


# Tables of runs, and of benchmarks, whose results are files of another kind.
OF_SUMMARIES: Mapping[str, Callable[[Any], Table]] = {
    table.__name__: table for table in (ladder, pooled, paired, merged, routed, matrix)
}
OF_BENCHMARKS: Mapping[str, Callable[[Mapping[str, Any]], Sequence[Sequence[str]]]] = {
    table.__name__: table
    for table in (
        *(algorithms, recipes, directives),
        *(real_tables.real_ladder, real_tables.real_brief, real_tables.real_paired, real_tables.speed),
        *(real_tables.logged_ladder, real_tables.logged_paired, real_tables.logged_scores, real_tables.logged_large),
    )
}


def made_from(kind: str, file: Path) -> Sequence[Sequence[str]]:
    """The table ``kind`` of the results in ``file``. Raises `RunError` where it is no summary and should be one."""
    if kind in OF_SUMMARIES:
        return OF_SUMMARIES[kind](read_summary(file))
    return OF_BENCHMARKS[kind](json.loads(file.read_text(encoding="utf-8")))


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table's lines; the first row holds the headers."""
    head, *body = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|" + "---|" * len(table[0]), *body]) + "\n"


def renewed(text: str, results: Path) -> str:
    """A document with every table made again."""

    def write(place: re.Match[str]) -> str:
        return f"{place[1]}{markdown(made_from(place[2], results / place[3]))}{place[4]}"

    return _PLACE.sub(write, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the project; its docs/results/ has the JSON")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is not up to date")
    asked = parser.parse_args(arguments)
    stale = []
    for document in sorted(path for pattern in _DOCUMENTS for path in asked.root.glob(pattern)):
        text = document.read_text(encoding="utf-8")
        fresh = renewed(text, asked.root / "docs" / "results")
        if fresh != text:
            stale.append(str(document.relative_to(asked.root)))
            if not asked.check:
                document.write_text(fresh, encoding="utf-8")
    if stale:
        print(f"{'not up to date' if asked.check else 'written'}: {', '.join(stale)}")
    return int(asked.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
