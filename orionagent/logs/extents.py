"""Owns the index of what is not yet delivered: runs of entries of one source, in the order they came.

Knows nothing of files: where an extent's bytes are is two numbers to it.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from orionagent.logs.journal import Kind


class Extent(msgspec.Struct, kw_only=True, gc=False):
    """Entries `first` to `last` of one source: `size` bytes at `offset` of the journal.

    `payload` holds the bytes instead (and `offset` is -1) while the disk refuses them. `order` is the place
    in time among all extents, `at` when the lines were read (RFC 3339).
    """

    order: int
    instance: str
    first: int
    last: int
    offset: int
    size: int
    source: str
    at: str
    kind: Kind = "log"
    payload: bytes | None = None

    @property
    def alert(self) -> bool:
        """Tell whether this is one alert rather than log entries."""
        return self.kind == "alert"

    @property
    def lasting(self) -> bool:
        """Tell whether this goes only when nothing else is left to give up."""
        return self.kind != "log"

    @property
    def count(self) -> int:
        """Return the number of entries."""
        return self.last - self.first + 1

    def split(self, entries: int, size: int) -> "Extent":
        """Cut off and return the first `entries`, which take `size` bytes; self keeps the rest."""
        head = Extent(
            order=self.order,
            instance=self.instance,
            first=self.first,
            last=self.first + entries - 1,
            offset=self.offset,
            size=size,
            source=self.source,
            at=self.at,
            kind=self.kind,
            payload=None if self.payload is None else self.payload[:size],
        )
        self.first += entries
        self.size -= size
        if self.payload is None:
            self.offset += size
        else:
            self.payload = self.payload[size:]
        return head


class SourceQueue:
    """The waiting extents of one source, those that are evicted last apart."""

    __slots__ = ("lasting", "logs")

    def __init__(self) -> None:
        self.logs: deque[Extent] = deque()
        self.lasting: deque[Extent] = deque()

    def head(self) -> Extent | None:
        """Return the oldest extent."""
        if not self.lasting:
            return self.logs[0] if self.logs else None
        if not self.logs or self.lasting[0].order < self.logs[0].order:
            return self.lasting[0]
        return self.logs[0]


class ExtentQueue:
    """All waiting extents by source, with their totals. Sole writer of both.

    Iterating and `pop_oldest` go by age over all sources; a source's own order never changes.
    """

    def __init__(self) -> None:
        self._sources: dict[str, SourceQueue] = {}
        self.entries = 0
        self.alerts = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[Extent]:
        found = [extent for queue in self._sources.values() for kind in (queue.logs, queue.lasting) for extent in kind]
        found.sort(key=lambda extent: extent.order)
        return iter(found)

    def sources(self) -> list[str]:
        """Return the sources that have something waiting."""
        return [source for source, queue in self._sources.items() if queue.logs or queue.lasting]

    def _count(self, extent: Extent, sign: int) -> None:
        self.entries += sign * extent.count
        self.bytes += sign * extent.size
        if extent.alert:
            self.alerts += sign

    def push(self, extent: Extent) -> None:
        """Append the newest extent of its source."""
        queue = self._sources.get(extent.source)
        if queue is None:
            queue = self._sources[extent.source] = SourceQueue()
        (queue.lasting if extent.lasting else queue.logs).append(extent)
        self._count(extent, 1)

    def push_back(self, extents: Iterable[Extent]) -> None:
        """Return extents that were popped, given oldest first, to where they were."""
        for extent in reversed(list(extents)):
            queue = self._sources.setdefault(extent.source, SourceQueue())
            (queue.lasting if extent.lasting else queue.logs).appendleft(extent)
            self._count(extent, 1)

    def head(self, sources: Iterable[str]) -> Extent | None:
        """Return the oldest extent of these sources."""
        best: Extent | None = None
        for source in sources:
            queue = self._sources.get(source)
            head = queue.head() if queue is not None else None
            if head is not None and (best is None or head.order < best.order):
                best = head
        return best

    def oldest(self, *, lasting: bool) -> Extent | None:
        """Return the oldest of what is evicted last, or of the rest, over all sources."""
        best: Extent | None = None
        for queue in self._sources.values():
            kind = queue.lasting if lasting else queue.logs
            if kind and (best is None or kind[0].order < best.order):
                best = kind[0]
        return best

    def pop(self, extent: Extent) -> None:
        """Take out an extent that is the head of its kind."""
        queue = self._sources[extent.source]
        kind = queue.lasting if extent.lasting else queue.logs
        taken = kind.popleft()
        assert taken is extent
        self._count(extent, -1)
        if not queue.logs and not queue.lasting:
            del self._sources[extent.source]

    def split(self, extent: Extent, entries: int, size: int) -> Extent:
        """Cut the first `entries` off a waiting extent and return them, no longer waiting."""
        head = extent.split(entries, size)
        self.entries -= head.count
        self.bytes -= head.size
        return head

    def newest_alert(self, source: str) -> Extent | None:
        """Return the youngest waiting alert of a source."""
        queue = self._sources.get(source)
        newest = queue.lasting[-1] if queue is not None and queue.lasting else None
        return newest if newest is not None and newest.alert else None

    def replace_newest_alert(self, extent: Extent) -> None:
        """Put `extent` where its source's youngest alert is."""
        alerts = self._sources[extent.source].lasting
        self._count(alerts[-1], -1)
        alerts[-1] = extent
        self._count(extent, 1)


def end_of_lines(payload: bytes, lines: int) -> int:
    """Return the offset behind the first `lines` lines."""
    return len(payload) - len(payload.split(b"\n", lines)[-1])
