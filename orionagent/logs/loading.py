"""Owns the start of a journal: what the file holds becomes extents to deliver and counters to go on from.

Knows nothing of limits or delivery; it changes nothing but a torn tail, which it cuts off.
"""

import logging
import time
from collections.abc import Iterator

import msgspec

from orionagent.logs.encode import encode_alert, encode_entry_safely
from orionagent.logs.extents import PACKING, Extent
from orionagent.logs.journal import Dropped, Kind, Range
from orionagent.logs.journalfile import JournalFile
from orionagent.logs.pile import Pile
from orionagent.logs.recovery import Intact, Recovered, Salvaged, salvage, scan
from orionagent.wire import Alert, Entry

log = logging.getLogger(__name__)

SECTOR_BYTES = 4096
SALVAGE_BYTES = 1 << 20
"""About how large a batch of salvaged lines gets."""


class Loaded(msgspec.Struct, kw_only=True):
    """A journal as found. `damaged`: it must be rewritten. `refused`: it cannot be written now.

    `stump_at` is where a batch that was never complete begins, if it could not be cut off.

    `salvaged` entries are among the extents, marked and renumbered; `lost` ones could not be read.
    """

    instance: str
    boot_changed: bool = False
    damaged: bool = False
    refused: OSError | None = None
    stump_at: int | None = None
    extents: Pile[Extent] = msgspec.field(default_factory=lambda: Pile(PACKING))
    next_seq: int = 1
    offsets: dict[str, int] = msgspec.field(default_factory=dict)
    dropped: Dropped = msgspec.field(default_factory=Dropped)
    rejected_total: int = 0
    salvaged: int = 0
    lost: int = 0

    def take(self, *, first_order: int) -> Iterator[Extent]:
        """Take out the extents, oldest first; their places in time count up from `first_order`."""
        for order, extent in enumerate(self.extents.drain(), start=first_order):
            extent.order = order
            yield extent


def load(file: JournalFile, boot_id: str, fresh_instance: str) -> Loaded:
    """Open the journal and read it back; never raises for the disk or the content.

    `fresh_instance` is taken unless the journal is whole and of this boot: then its own goes on.
    """
    try:
        size = file.open()
    except OSError as error:
        # Numbers above whatever that journal may hold, should it come back.
        return Loaded(instance=fresh_instance, refused=error, next_seq=time.time_ns() // 1_000_000)
    found = scan(lambda offset, count: _read(file, offset, count), size, boot_id)
    loaded = Loaded(
        instance=fresh_instance,
        boot_changed=found.foreign_boot,
        damaged=found.damaged,
        refused=file.refused,
        next_seq=found.next_seq,
        offsets=found.offsets,
        dropped=found.dropped,
        rejected_total=found.rejected_total,
    )
    if found.header is not None and not found.damaged and not found.foreign_boot:
        loaded.instance = found.header.instance
    for part in found.parts.drain():
        if isinstance(part, Intact):
            extents = _waiting(file, part, found, fresh_instance)
        else:
            rest = salvage(lambda offset, count: _read(file, offset, count), part, found.done)
            extents = _renumbered(rest, loaded)
            loaded.lost += rest.lost
        for extent in extents:
            loaded.extents.append(extent)
    if loaded.lost or loaded.salvaged:
        log.error("%s was damaged: %d entries salvaged, %d lost", file.path, loaded.salvaged, loaded.lost)
    if found.cut_bytes:
        loaded.stump_at = found.end
        if loaded.refused is None:
            log.info("%s: cutting off %d bytes that were never complete", file.path, found.cut_bytes)
            try:
                file.cut(found.end)
            except OSError as error:
                loaded.refused = error
            else:
                loaded.stump_at = None
    return loaded


def _read(file: JournalFile, offset: int, size: int) -> bytes:
    """Read around bad sectors: what the disk cannot give reads as zeros."""
    try:
        return file.read(offset, size)
    except OSError as error:
        log.error("cannot read %s at %d: %s", file.path, offset, error)
    pieces = []
    while size > 0:
        count = min(SECTOR_BYTES, size)
        try:
            piece = file.read(offset, count)
        except OSError:
            piece = bytes(count)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def _waiting(file: JournalFile, part: Intact, found: Recovered, fresh_instance: str) -> Iterator[Extent]:
    """Yield what of an intact batch is neither delivered nor given up."""
    gaps = found.done.missing(part.first, part.last)
    if not gaps:
        return
    whole = gaps == [(part.first, part.last)]
    ends = [] if whole else _line_ends(_read(file, part.offset, part.size))
    for first, last in gaps:
        start, end = (0, part.size) if whole else _bytes_of(part.first, (first, last), ends)
        yield Extent(
            order=0,
            instance=part.instance or fresh_instance,
            first=first,
            last=last,
            offset=part.offset + start,
            size=end - start,
            source=part.source,
            at=part.at,
            kind=part.kind,
        )


def _line_ends(payload: bytes) -> list[int]:
    ends, position = [], 0
    for line in payload.split(b"\n")[:-1]:
        position += len(line) + 1
        ends.append(position)
    return ends


def _bytes_of(base: int, wanted: Range, ends: list[int]) -> tuple[int, int]:
    first, last = wanted
    start = ends[first - base - 1] if first > base else 0
    return start, ends[last - base]


def _renumbered(rest: Salvaged, loaded: Loaded) -> Iterator[Extent]:
    """Yield the salvaged lines as batches in memory, under the new instance and with numbers of their own."""
    group: list[Entry] = []
    size = 0
    for line in rest.lines:
        loaded.salvaged += 1
        if isinstance(line, Alert):
            yield from _extent_of(group, loaded)
            payload = encode_alert(line)
            yield _in_memory(loaded, payload, 1, line.source, line.timestamp, "alert")
            group, size = [], 0
            continue
        if group and (group[0].source != line.source or size > SALVAGE_BYTES):
            yield from _extent_of(group, loaded)
            group, size = [], 0
        group.append(line)
        size += len(line.message)
    yield from _extent_of(group, loaded)


def _extent_of(group: list[Entry], loaded: Loaded) -> Iterator[Extent]:
    if group:
        payload = b"".join(
            encode_entry_safely(msgspec.structs.replace(entry, seq=loaded.next_seq + place, damaged=True))
            for place, entry in enumerate(group)
        )
        yield _in_memory(loaded, payload, len(group), group[0].source, group[0].timestamp, "log")


def _in_memory(loaded: Loaded, payload: bytes, count: int, source: str, at: str, kind: Kind) -> Extent:
    first = loaded.next_seq
    loaded.next_seq += count
    return Extent(
        order=0,
        instance=loaded.instance,
        first=first,
        last=first + count - 1,
        offset=-1,
        size=len(payload),
        source=source,
        at=at,
        kind=kind,
        payload=payload,
    )
