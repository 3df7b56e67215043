"""The tables of the documents, out of the published results.

    python -m benchmarks.tables            # writes them anew, in the README, docs/ and benchmarks/
    python -m benchmarks.tables --check    # says which are not what docs/results holds

A document has a pair of lines round each: ``<!-- table ladder single.json -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selfedit.report.arms import COLUMNS, arms_of, cells
from selfedit.report.words import Row, Summary, count, percent, points, rows, rung_label

Table = list[Sequence[str]]
ROOT = Path(__file__).parents[1]
_DOCUMENTS = ("README.md", "docs/*.md", "benchmarks/README.md")
_PLACE = re.compile(r"(<!-- table (\w+) ([\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _share(row: Row) -> str:
    low, high = (f"{100 * row[name]:.1f}" for name in ("low", "high"))
    return f"{100 * row['accuracy']:.1f} [{low}, {high}]"


def _difference(row: Row) -> str:
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def ladder(summary: Summary) -> Table:
    """A rung a row."""
    made: Table = [("prepared with", "accuracy, % [95 %]", "steps a passage", "tokens a passage", "passages")]
    for row in rows(summary, "ladder"):
        cost = (count(row[name]) for name in ("steps", "trained_tokens", "n_tasks"))
        made.append((rung_label(row["rung"]), _share(row), *cost))
    return made


def pooled(summary: Summary) -> Table:
    """A rung a row, over several seeds and by each."""
    seeds = [{row["rung"]: row["accuracy"] for row in seed["ladder"]} for seed in summary["seeds"]]
    made: Table = [("prepared with", "accuracy, % [95 %]", "by seed", "passages")]
    for row in rows(summary, "ladder"):
        by_seed = ", ".join(f"{100 * seed[row['rung']]:.1f}" for seed in seeds)
        made.append((rung_label(row["rung"]), _share(row), by_seed, count(row["n_tasks"])))
    return made


def paired(summary: Summary) -> Table:
    """Differences on the same passages, a pair a row."""
    made: Table = [("difference, on the same passages", "points [95 %]")]
    for row in rows(summary, "paired"):
        made.append((f"{rung_label(row['a'])} - {rung_label(row['b'])}", _difference(row)))
    return made


def merged(summary: Summary) -> Table:
    """The ways of taking in a stream that end in one model."""
    return _arms(summary, lambda kind: kind != "routed")


def routed(summary: Summary) -> Table:
    """The ways that keep edits apart."""
    return _arms(summary, lambda kind: kind == "routed")


def _arms(summary: Summary, wanted: Callable[[str], bool]) -> Table:
    made: Table = [("way", "streams", *COLUMNS)]
    for name, arm in arms_of(summary).items():
        if wanted(arm["merge"]):
            made.append((f"`{name}`", str(arm["seeds"]), *cells(arm)))
    return made


def matrix(summary: Summary) -> Table:
    """Accuracy on each passage at the end of a short stream, and right after its own edit, a way a row."""
    arms = arms_of(summary)
    n = max(len(row) for arm in arms.values() for row in arm["matrix"].values())
    made: Table = [("way", "asked", *(f"passage {i}" for i in range(1, n + 1)))]
    for name, arm in arms.items():
        at_once = [arm["matrix"][str(i)][i - 1] for i in range(1, n + 1)]
        for when, row in (("after its own edit", at_once), ("at the end", arm["matrix"][str(n)])):
            made.append((f"`{name}`", when, *map(percent, row)))
    return made


def algorithms(made: Summary) -> Table:
    """The comparison of algorithms, one a row."""
    found = made["algorithms"]
    numbers = [row["round"] for row in next(iter(found.values()))["rounds"]]
    against = made.get("against_paper", {})
    table: Table = [("algorithm", *(f"round {n}, %" for n in numbers), "less the paper's, points", "minutes a run")]
    for name, arm in found.items():
        less = _difference(against[name]) if name in against else ""
        table.append((f"`{name}`", *map(_share, arm["rounds"]), less, f"{arm['seconds'] / 60:.0f}"))
    return table


def recipes(made: Summary) -> Table:
    """The published recipe without its padding and with it, a rung a row."""
    table: Table = [("prepared with", "`clean`, % [95 %]", "`paper`", "`paper` - `clean`, points", "tokens a passage")]
    for row in rows(made, "recipes"):
        tokens = ", ".join(count(row[name]["trained_tokens"]) for name in ("clean", "paper"))
        table.append((rung_label(row["rung"]), _share(row["clean"]), _share(row["paper"]), _difference(row), tokens))
    return table


KINDS: Mapping[str, Callable[[Summary], Table]] = {
    table.__name__: table for table in (ladder, pooled, paired, merged, routed, matrix, algorithms, recipes)
}


def markdown(table: Table) -> str:
    """A table's lines; the first row is its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|" + "---|" * len(table[0]), *body]) + "\n"


def renewed(text: str, results: Path) -> str:
    """A document with every table written anew."""

    def write(place: re.Match[str]) -> str:
        summary = json.loads((results / place[3]).read_text(encoding="utf-8"))
        return f"{place[1]}{markdown(KINDS[place[2]](summary))}{place[4]}"

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
