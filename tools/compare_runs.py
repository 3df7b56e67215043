"""Are two versions of selfedit the same, digit for digit? The oracle of a redesign.

Run the settings files of `tools/oracle/` with both versions on one machine, with the same number of threads, each into a
directory of its own; then compare the directories::

    for f in tools/oracle/*.toml; do OMP_NUM_THREADS=1 selfedit evaluate $f --out before/$(basename $f .toml); done
    selfedit demo --seed 0 --out before/demo
    python tools/compare_runs.py before after

Every figure of the summaries has to be equal. Left out are wall clock, versions, the settings themselves (their names may have
changed) and what a version reports only. Exits with 1 where anything differs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

IGNORED = ("timing", "settings", "settings_sha256", "selfedit_version", "schema_version", "tasks_sha256")
# Names of the first edition and what they are called now.
RENAMED: dict[str, str] = {}
# Figures that are gone: each was 0, or said what a setting says.
NEW = ("label", "group")  # of a rung: its name in reports, and what it is there for
GONE = ("replayed", "kl_price")


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Where two values differ, as paths with both values; floats have to be the same digits."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        before = {RENAMED.get(key, key): value for key, value in before.items() if key not in IGNORED}
        after = {key: value for key, value in after.items() if key not in IGNORED}
        for key in sorted(before.keys() | after.keys()):
            if key not in after:
                if key not in GONE:
                    yield f"{path}.{key}: is gone"
            elif key not in before:
                if key not in NEW:
                    yield f"{path}.{key}: is new"
            else:
                yield from differences(before[key], after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        if path.endswith(".paired"):  # in another order
            before, after = (sorted(rows, key=lambda row: (row["a"], row["b"])) for rows in (before, after))
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


def main(before: Path, after: Path) -> int:
    """Compare every ``summary.json`` below ``before`` with its counterpart; print what differs."""
    worst = 0
    names = sorted(path.parent.relative_to(before) for path in before.rglob("summary.json"))
    if not names:
        print(f"{before}: there is no summary.json in it")
        return 1
    for name in names:
        file = after / name / "summary.json"
        if not file.exists():
            print(f"{name}: no run in {after}")
            worst = 1
            continue
        found = list(differences(json.loads((before / name / "summary.json").read_text()), json.loads(file.read_text())))
        print(f"{name}: {'equal' if not found else f'{len(found)} differences'}")
        for line in found[:12]:
            print(f"  {line}")
        worst = max(worst, int(bool(found)))
    return worst


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
