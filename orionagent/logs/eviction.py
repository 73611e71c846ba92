"""Owns the buffer's limits, and which entries go when there are more: the oldest, and only as many as must.

Knows nothing of the journal, or of how what goes is counted.
"""

from collections.abc import Callable

from orionagent.logs.extents import Extent, end_of_lines
from orionagent.logs.index import ExtentQueue

MOST_ALERTS = 1000


class Eviction:
    """Takes what is too much out of the queue. Sole writer of the limits. `payload` reads an extent's lines."""

    def __init__(
        self, queue: ExtentQueue, payload: Callable[[Extent], bytes | None], *, max_entries: int, max_bytes: int
    ) -> None:
        self._queue = queue
        self._payload = payload
        self.max_entries = max_entries
        self.max_bytes = max_bytes

    def make_room(self, entries: int, size: int, *, lasting: bool = False) -> list[Extent]:
        """Take out the oldest log entries, or what is meant to last longest, until so much more fits."""
        queue = self._queue
        most_entries = max(self.max_entries - entries, 0)
        most_bytes = max(self.max_bytes - size, 0)
        gone: list[Extent] = []
        while queue.entries > most_entries or queue.bytes > most_bytes:
            extent = queue.oldest(lasting=lasting)
            if extent is None:
                break
            gone.append(self._trim(extent, queue.entries - most_entries, queue.bytes - most_bytes))
        return gone

    def surplus(self) -> list[Extent]:
        """Take out what is over the limits: log entries first, then the rest."""
        if self._queue.entries <= self.max_entries and self._queue.bytes <= self.max_bytes:
            return []
        return [*self.make_room(0, 0), *self.make_room(0, 0, lasting=True)]

    def spare_alerts(self) -> list[Extent]:
        """Take out the oldest of what is meant to last, until one more alert may wait."""
        gone: list[Extent] = []
        while self._queue.alerts >= MOST_ALERTS:
            oldest = self._queue.oldest(lasting=True)
            assert oldest is not None
            self._queue.pop(oldest)
            gone.append(oldest)
        return gone

    def _trim(self, extent: Extent, surplus: int, excess: int) -> Extent:
        """Take out the oldest `surplus` entries and `excess` bytes of a waiting extent, or all of it."""
        payload = None
        if extent.count > surplus and extent.size > excess:
            payload = self._payload(extent)
        if payload is not None:
            end = end_of_lines(payload, surplus) if surplus > 0 else 0
            if excess > end:
                end = payload.index(b"\n", excess - 1) + 1
            if end < extent.size:
                return self._queue.split(extent, payload.count(b"\n", 0, end), end)
        self._queue.pop(extent)
        return extent
