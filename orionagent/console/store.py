"""Owns the database connection: transactions, the clock, short queries, bounded retention.

Knows nothing of HTTP; what the rows mean is said by `accounts`, `tokens`, `fleet`, `logbook` and `alarms`.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from orionagent.console.schema import open_database

PRUNE_STEP = 20_000
"""Log entries that one call of `prune` deletes at most (of each kind of surplus): some tens of milliseconds."""
EARLIEST_MS, LATEST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last Unix millisecond that `iso` can render: those of the years 1 and 9999."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept; whatever is older or beyond the count goes, oldest first."""

    log_entries: int = 1_000_000
    log_age_s: float = 30 * 86400
    sample_age_s: float = 24 * 3600
    performance_age_s: float = 3600
    count_age_s: float = 31 * 86400
    alerts: int = 5_000
    commands: int = 5_000


def iso(seconds: float | None) -> str | None:
    """Render a Unix time as RFC 3339, UTC, milliseconds; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """One connection for everything but searches: SQLite has one writer anyway, and each statement here is short.

    Calls block the hub while SQLite works (a 5,000-entry insert some tens of milliseconds). Code inside
    `transaction` must not switch greenlets: the connection is shared.
    """

    def __init__(
        self, path: str, *, clock: Callable[[], float] = time.time, retention: Retention | None = None
    ) -> None:
        self.path = path
        self.now = clock
        self.retention = retention or Retention()
        self._connection = open_database(path)

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what happens inside one atomic write; nested use joins the outer one."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Execute one statement."""
        return self._connection.execute(sql, values)

    def insert(self, sql: str, *values: Any) -> int:
        """Execute one INSERT and return the new row's id."""
        row_id = self._connection.execute(sql, values).lastrowid
        assert row_id is not None
        return row_id

    def run_many(self, sql: str, rows: list[Any]) -> None:
        """Execute one statement for many rows."""
        self._connection.executemany(sql, rows)

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row, or None."""
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return every row."""
        return self._connection.execute(sql, values).fetchall()

    def scalar(self, sql: str, *values: Any) -> Any:
        """Return the first column of the first row, or None."""
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def prune(self) -> int:
        """Delete what `retention` no longer covers; return how many log entries went.

        Takes small steps so that nobody waits long: while it returns PRUNE_STEP or more, there is more to do.
        """
        keep, now = self.retention, self.now()
        with self.transaction():
            removed = self._prune_logs(now)
            self.run("DELETE FROM samples WHERE at < ?", now - keep.sample_age_s)
            self.run("DELETE FROM performance WHERE at < ?", now - keep.performance_age_s)
            self.run("DELETE FROM pings WHERE minute < ?", int((now - keep.count_age_s) // 60))
            self.run("DELETE FROM log_counts WHERE hour < ?", int((now - keep.count_age_s) // 3600))
            self.run("DELETE FROM tags WHERE used_at < ?", now - keep.log_age_s)
            self.run("DELETE FROM user_tokens WHERE expires_at < ?", now)
            self.run("DELETE FROM cli_logins WHERE created_at < ?", now - 86400)
            for table, count in (("alerts", keep.alerts), ("commands", keep.commands)):
                self.run(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", count)  # noqa: S608
        return removed

    def _prune_logs(self, now: float, step: int = PRUNE_STEP) -> int:
        # Asked for both at once, SQLite would read the whole table.
        first, last = self.scalar("SELECT min(id) FROM logs"), self.scalar("SELECT max(id) FROM logs")
        if first is None:
            return 0
        # Ids are given out in order of arrival, so "beyond the count" is a range of ids.
        beyond = last - self.retention.log_entries
        removed = self.run("DELETE FROM logs WHERE id <= ?", min(beyond, first + step - 1)).rowcount
        # A device's clock may be wrong, so the order of arrival says nothing about age. CROSS JOIN keeps SQLite
        # to the cheap order: for each source the old end of its stretch of logs_by_time.
        removed += self.run(
            "DELETE FROM logs WHERE id IN (SELECT old.id FROM sources CROSS JOIN logs AS old"
            " ON old.source_id = sources.id WHERE old.at < ? LIMIT ?)",
            *((now - self.retention.log_age_s) * 1000, step),
        ).rowcount
        return removed
