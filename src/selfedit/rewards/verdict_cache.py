"""Verdicts by content, and what was spent of budgets: one SQLite file that several processes may share."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from ..disk import disk_error, has_no_room, why_not
from ..errors import SettingsError


class VerdictCache:
    """Verdicts by content, and how much of each budget is spent: one SQLite file that several processes may share."""

    def __init__(self, file: Path) -> None:
        """Open it, or make it.

        Raises:
            SettingsError: it can't be used.
            DiskError: there is no room for it.
        """
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
            why = why_not(file, error)
            if has_no_room(why):
                raise disk_error(file, error, "name another file for reward.judge.cache") from None
            advice = "name another file"
            if "not a database" in why or "malformed" in why:
                advice += ", or move it away"
            raise SettingsError(f"reward.judge.cache: {file} can't be used ({why}); {advice}") from None

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise disk_error(self._file, error) from None

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


def default_cache() -> Path:
    """The cache's place where no setting names one.

    Raises:
        SettingsError: the user has no home directory.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME") or "")
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "selfedit" / "judge.db"
    except RuntimeError:
        raise SettingsError(
            "reward.judge.cache: you have no home directory to keep verdicts in (HOME is not set); name a file, such as "
            "'judge.db'"
        ) from None
