"""What a run left on the disk, and waiting for a process to be inside a chunk."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

from commands import Command


def summary_of(directory: Path) -> dict:
    summary = json.loads((directory / "summary.json").read_text())
    summary.pop("timing")
    return summary


def journal_of(directory: Path) -> list:
    with sqlite3.connect(directory / "journal.db") as db:
        return db.execute("select key, stage, round, data from chunks order by key").fetchall()


def wait_for_chunk(child: Command, directory: Path, key: str) -> None:
    """Return as soon as the journal holds ``key``: the process is then inside the chunk after it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if child.ended():
            raise AssertionError(f"the run ended before {key}: {child.errors}")
        if (directory / "journal.db").exists():
            try:
                with sqlite3.connect(f"file:{directory}/journal.db?mode=ro", uri=True) as db:
                    if db.execute("select 1 from chunks where key = ?", (key,)).fetchone():
                        return
            except sqlite3.OperationalError:
                pass  # the tables are being made
        time.sleep(0.002)
    raise AssertionError(f"{key} did not come")
