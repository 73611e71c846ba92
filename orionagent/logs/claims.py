"""Owns what is handed out for a request: which entries, cut where, and what is left when only some of it is done.

Knows nothing of what becomes of the entries, or of the journal.
"""

from collections.abc import Callable, Collection, Sequence

import msgspec

from orionagent.logs.extents import Extent, end_of_lines
from orionagent.logs.index import ExtentQueue


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of one instance taken out for one request, oldest first. `alert`: exactly one alert."""

    extents: Sequence[Extent]
    entries: int
    bytes: int
    instance: str
    alert: bool

    @property
    def first(self) -> int:
        """Return the first entry's sequence number."""
        return self.extents[0].first

    @property
    def last(self) -> int:
        """Return the last entry's sequence number."""
        return self.extents[-1].last


class Claims:
    """Hands out one claim at a time. Sole writer of which one is out. `payload` reads an extent's lines."""

    def __init__(self, queue: ExtentQueue, payload: Callable[[Extent], bytes | None]) -> None:
        self._queue = queue
        self._payload = payload
        self.out: Claim | None = None

    def take(self, sources: Collection[str], max_entries: int, max_bytes: int) -> Claim | None:
        """Take out the oldest entries of these sources: of one instance, or one alert.

        At least one entry, whatever its size. None when nothing waits.
        """
        assert self.out is None
        taken: list[Extent] = []
        entries = size = 0
        while True:
            head = self._queue.head(sources)
            if head is None or (taken and (head.alert or head.instance != taken[0].instance)):
                break
            part = self._part(head, max_entries - entries, max_bytes - size, must=not taken)
            if part is None:
                break
            taken.append(part)
            entries += part.count
            size += part.size
            if part.alert or part is not head:
                break
        if not taken:
            return None
        first = taken[0]
        self._queue.out = taken
        self.out = Claim(extents=taken, entries=entries, bytes=size, instance=first.instance, alert=first.alert)
        return self.out

    def _part(self, extent: Extent, room: int, space: int, *, must: bool) -> Extent | None:
        """Take out as much of a waiting head as fits; with `must` at least one entry."""
        if (extent.count <= room and extent.size <= space) or (must and extent.count == 1):
            self._queue.pop(extent)
            return extent
        payload = self._payload(extent) if room > 0 and space > 0 else None
        if payload is None:
            if must:
                self._queue.pop(extent)  # unreadable: whoever reads the claim finds out
                return extent
            return None
        end = end_of_lines(payload, min(room, extent.count))
        if end > space:
            end = payload.rfind(b"\n", 0, space) + 1
        if end == 0 and must:
            end = payload.index(b"\n") + 1
        return self._queue.split(extent, payload.count(b"\n", 0, end), end) if end else None

    def cut(self, claim: Claim, entries: int, size: int) -> list[Extent]:
        """Return the first `entries`, `size` bytes, of the claim; `out` is what is left of it."""
        if entries >= claim.entries:
            self.end(claim)
            return list(claim.extents)
        done: list[Extent] = []
        rest = list(claim.extents)
        left = entries
        while left and rest[0].count <= left:
            done.append(rest.pop(0))
            left -= done[-1].count
        if left:
            done.append(rest[0].split(left, size - sum(extent.size for extent in done)))
        self._queue.out = rest
        self.out = msgspec.structs.replace(
            claim, extents=rest, entries=claim.entries - entries, bytes=claim.bytes - size
        )
        return done

    def end(self, claim: Claim) -> None:
        """Note that the claim is no longer out."""
        assert claim is self.out
        self._queue.out = ()
        self.out = None
