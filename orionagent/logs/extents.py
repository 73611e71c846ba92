"""Owns what an extent is: entries of one source that came together, and where their bytes are.

Knows nothing of files: where an extent's bytes are is two numbers to it.
"""

from collections.abc import Iterable

import msgspec

from orionagent.logs.journal import Kind, Range
from orionagent.logs.pile import Packing


class Extent(msgspec.Struct, kw_only=True, gc=False, array_like=True):
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


PACKING: Packing[Extent] = Packing(Extent, lambda extent: extent.payload is not None)
"""How a pile of extents is packed: those that hold their bytes are not."""


def numbers_of(extents: Iterable[Extent]) -> list[Range]:
    """Return the numbers of those that the journal knows, as few ranges."""
    ranges: list[Range] = []
    for extent in extents:
        if extent.payload is not None:
            continue
        if ranges and ranges[-1][1] + 1 == extent.first:
            ranges[-1] = (ranges[-1][0], extent.last)
        else:
            ranges.append((extent.first, extent.last))
    return ranges


def end_of_lines(payload: bytes, lines: int) -> int:
    """Return the offset behind the first `lines` lines."""
    return len(payload) - len(payload.split(b"\n", lines)[-1])
