"""Verdicts of a judge on disk, and what was spent on them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from ..errors import DiskError, SettingsError


class VerdictCache:
    """Verdicts by content, and how much of each budget is spent: one SQLite file that several processes may share."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, isolation_level=None, timeout=30, check_same_thread=False)
            self._db.execute(
                "create table if not exists replies (key text primary key, value integer not null, model text not null)"
            )
            # Budgets by their key, under the table name that existing caches have.
            self._db.execute("create table if not exists purses (name text primary key, spent integer not null)")
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                f"reward.judge.cache: {file} can't be used ({error}); name another file, or move it away"
            ) from None

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise DiskError(
                f"{self._file}: {error}; what was committed is kept; run the same command again to continue"
            ) from None

    def get(self, key: str) -> int | None:
        """The verdict (1 or 0) under a key; None where there is none."""
        row = self._execute("select value from replies where key = ?", key).fetchone()
        return None if row is None else int(row[0])

    def put(self, key: str, value: int, model: str) -> None:
        """Keep a verdict, and which model gave it."""
        self._execute("insert or replace into replies values (?, ?, ?)", key, value, model)

    def spend(self, budget_key: str, budget: int) -> bool:
        """Charge one question to a budget; False where it is used up."""
        self._execute("insert or ignore into purses values (?, 0)", budget_key)
        taken = "update purses set spent = spent + 1 where name = ? and spent < ?"
        return self._execute(taken, budget_key, budget).rowcount == 1
