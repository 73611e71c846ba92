"""Owns the count of entries that were given up: how many, from when to when, and how many nobody was told of.

Knows nothing of why entries go, or of where the count is written down.
"""

from collections.abc import Iterable

from orionagent.logs.extents import Extent
from orionagent.logs.journal import Dropped


class Drops:
    """Sole writer of the count, and of which state of it the journal has."""

    def __init__(self) -> None:
        self.count = Dropped()
        self._written = self.count

    def __repr__(self) -> str:
        return f"Drops({self.count})"

    def add(self, extents: Iterable[Extent]) -> None:
        """Count entries that are given up."""
        for extent in extents:
            old = self.count
            self.count = Dropped(
                total=old.total + extent.count,
                unreported=old.unreported + extent.count,
                since=min(old.since or extent.at, extent.at),
                until=max(old.until or extent.at, extent.at),
            )

    def adopt(self, older: Dropped, lost: int) -> None:
        """Add what a journal had counted before, and what of it could not be read."""
        mine = self.count
        self.count = Dropped(
            total=older.total + mine.total + lost,
            unreported=older.unreported + mine.unreported,
            since=older.since or mine.since,
            until=mine.until or older.until,
        )

    def report(self) -> Dropped:
        """Return what is to be told now; from here on it counts as told."""
        told = self.count
        self.count = Dropped(total=told.total)
        return told

    def note_written(self) -> bool:
        """Note that the journal learns the count as it is; tell whether it was another one that it had."""
        news = self.count is not self._written
        self._written = self.count
        return news
