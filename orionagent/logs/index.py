"""Owns the index of what is not yet delivered: the extents of every source, in the order they came.

Knows nothing of files, limits or delivery.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from heapq import merge

from orionagent.logs.extents import PACKING, Extent
from orionagent.logs.pile import Chunk, Pile

RECORD_BYTES = 128
"""About what a batch's record takes in the journal."""


class SourceQueue:
    """The waiting extents of one source, those that are evicted last apart: of these there are few."""

    __slots__ = ("lasting", "logs")

    def __init__(self) -> None:
        self.logs: Pile[Extent] = Pile(PACKING)
        self.lasting: deque[Extent] = deque()

    def __bool__(self) -> bool:
        return bool(self.lasting) or bool(self.logs)

    def __iter__(self) -> Iterator[Extent]:
        return merge(self.lasting, self.logs, key=_age)

    def head(self) -> Extent | None:
        """Return the oldest extent."""
        logs, lasting = self.logs.front, self.lasting
        if not lasting:
            return logs[0] if logs else None
        return logs[0] if logs and logs[0].order < lasting[0].order else lasting[0]

    def push(self, extent: Extent) -> None:
        """Append the newest extent."""
        (self.lasting if extent.lasting else self.logs).append(extent)

    def push_back(self, extent: Extent) -> None:
        """Return an extent that is older than all others of its kind."""
        (self.lasting if extent.lasting else self.logs).appendleft(extent)

    def pop(self, extent: Extent) -> None:
        """Take out the head of its kind."""
        taken = (self.lasting if extent.lasting else self.logs).popleft()
        assert taken is extent


class ExtentQueue:
    """All waiting extents by source, with their totals. Sole writer of both.

    A source's own order never changes. `out` are those that were taken out for a request and not yet let go: the
    journal must keep them, too. Iterating goes by age over all of them.
    """

    def __init__(self) -> None:
        self._sources: dict[str, SourceQueue] = {}
        self.out: Sequence[Extent] = ()
        self.entries = 0
        self.alerts = 0
        self.bytes = 0
        self.batches = 0

    def __iter__(self) -> Iterator[Extent]:
        return merge(self.out, *self._sources.values(), key=_age)

    def __bool__(self) -> bool:
        return bool(self._sources) or bool(self.out)

    @property
    def footprint_bytes(self) -> int:
        """Return about how much of a journal everything takes, records included."""
        payload = self.bytes + sum(extent.size for extent in self.out)
        return payload + (self.batches + len(self.out)) * RECORD_BYTES

    def sources(self) -> list[str]:
        """Return the sources that have something waiting."""
        return list(self._sources)

    def _count(self, extent: Extent, sign: int) -> None:
        self.batches += sign
        self.entries += sign * extent.count
        self.bytes += sign * extent.size
        if extent.alert:
            self.alerts += sign

    def _queue(self, source: str) -> SourceQueue:
        queue = self._sources.get(source)
        if queue is None:
            queue = self._sources[source] = SourceQueue()
        return queue

    def push(self, extent: Extent) -> None:
        """Append the newest extent of its source."""
        self._queue(extent.source).push(extent)
        self._count(extent, 1)

    def push_back(self, extents: Sequence[Extent]) -> None:
        """Return extents that were popped, given oldest first, to where they were."""
        for extent in reversed(extents):
            self._queue(extent.source).push_back(extent)
            self._count(extent, 1)

    def push_before(self, extents: Iterable[Extent]) -> None:
        """Put extents, given oldest first, before all that are here."""
        younger, self._sources = self._sources, {}
        for extent in extents:
            self.push(extent)
        for source, queue in younger.items():
            for extent in queue:
                self._queue(source).push(extent)

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
            kind = queue.lasting if lasting else queue.logs.front
            if kind and (best is None or kind[0].order < best.order):
                best = kind[0]
        return best

    def pop(self, extent: Extent) -> None:
        """Take out an extent that is the head of its kind."""
        queue = self._sources[extent.source]
        queue.pop(extent)
        self._count(extent, -1)
        if not queue:
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

    # What the journal's keeper needs

    def in_memory(self) -> list[Extent]:
        """Return those extents whose bytes are in memory, oldest first."""
        parts = [*(queue.lasting for queue in self._sources.values()), self.out]
        loose = [*parts, *(queue.logs.loose() for queue in self._sources.values())]
        return [extent for extent in merge(*loose, key=_age) if extent.payload is not None]

    def snapshot(self) -> "Snapshot":
        """Return all extents as they are now, for another thread."""
        parts: list[Sequence[Chunk[Extent]]] = [[list(map(copy, self.out))]]
        for queue in self._sources.values():
            parts += [[list(map(copy, queue.lasting))], queue.logs.chunks()]
        return Snapshot(parts)

    def relocate(self, snapshot: "Snapshot", place: Callable[[Extent], None]) -> None:
        """Have every extent placed anew by `place`, as far as the snapshot has not done it."""
        for extent in self.out:
            place(extent)
        for queue in self._sources.values():
            queue.logs.update(place, snapshot.placed)
            for extent in queue.lasting:
                place(extent)


class Snapshot:
    """All extents at one moment, oldest first."""

    def __init__(self, parts: Sequence[Sequence[Chunk[Extent]]]) -> None:
        self._parts = parts
        self.placed: dict[int, Chunk[Extent]] = {}

    def __iter__(self) -> Iterator[Extent]:
        return merge(*map(_unpacked, self._parts), key=_age)

    def relocate(self, place: Callable[[Extent], None]) -> None:
        """Have those that are packed placed anew: the work that is worth another thread."""
        packed = (chunk for chunks in self._parts for chunk in chunks if isinstance(chunk, bytes))
        self.placed = {id(chunk): PACKING.amend(chunk, place) for chunk in packed}


def _unpacked(chunks: Sequence[Chunk[Extent]]) -> Iterator[Extent]:
    for chunk in chunks:
        yield from PACKING.unpack(chunk)


def _age(extent: Extent) -> int:
    return extent.order
