"""Owns the offline buffer: which entries wait, in what order, and which go when there are too many.

Knows nothing of the backend, tokens, greenlets, or where bytes lie.
"""

import time
import uuid
import zlib
from collections.abc import Callable, Collection, Sequence

import msgspec

from orionagent.logs.custody import Custody
from orionagent.logs.disk import Disk
from orionagent.logs.encode import encode_alert, encode_batch
from orionagent.logs.extents import Extent, ExtentQueue
from orionagent.logs.journal import Dropped, Header, Kind, Mark, Range, Record
from orionagent.logs.journalfile import JournalFile
from orionagent.logs.loading import Loaded
from orionagent.wire import Alert, Batch

MOST_ALERTS = 1000


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


class Buffer:
    """What is not delivered yet, at most `max_entries` and `max_bytes` of it, oldest out.

    Sole writer of sequence numbers and of the drop counters. Nothing here raises for the disk's sake. At most
    one claim is out at a time; its entries are not evicted while it is, so that what is delivered is never
    counted as dropped: until its `ack` or `release` the limits may be exceeded by as much. `tap` sees the
    source, count and encoded lines of every batch.
    """

    def __init__(
        self,
        path: str,
        *,
        boot_id: str,
        max_entries: int,
        max_bytes: int,
        disk: Disk | None = None,
        tap: Callable[[str, int, Sequence[bytes]], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        new_instance: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self._boot_id = boot_id
        self._tap = tap
        self._queue = ExtentQueue()
        self._claim: Claim | None = None
        self._next_seq = 1
        self._order = 0
        self.dropped = Dropped()
        self._written = self.dropped
        self.rejected_total = 0
        self.offsets: dict[str, int] = {}
        self.custody = Custody(
            JournalFile(path, disk),
            boot_id=boot_id,
            live=self._live,
            adopt=self._adopt,
            header=self._header,
            monotonic=monotonic,
            new_instance=new_instance,
        )

    def __repr__(self) -> str:
        return f"Buffer(entries={self.entries}, size_bytes={self.size_bytes}, next_seq={self._next_seq})"

    # What it holds

    @property
    def entries(self) -> int:
        """Return how many entries wait, those of the claim included."""
        return self._queue.entries + (self._claim.entries if self._claim is not None else 0)

    @property
    def size_bytes(self) -> int:
        """Return how many bytes they take on the wire."""
        return self._queue.bytes + (self._claim.bytes if self._claim is not None else 0)

    def oldest_at(self) -> str | None:
        """Return when the oldest waiting entry was read, RFC 3339."""
        heads = [self._queue.oldest(lasting=False), self._queue.oldest(lasting=True)]
        if self._claim is not None:
            heads.append(self._claim.extents[0])
        return min((extent.at for extent in heads if extent is not None), default=None)

    @property
    def claimed(self) -> Claim | None:
        """Return the claim that is out."""
        return self._claim

    def oldest_order(self, sources: Collection[str]) -> int:
        """Return the place in time of the oldest waiting entry of these sources."""
        head = self._queue.head(sources)
        return head.order if head is not None else self._order + 1

    def oldest_source(self) -> str | None:
        """Return whose entry would have to go first."""
        oldest = self._queue.oldest(lasting=False) or self._queue.oldest(lasting=True)
        return oldest.source if oldest is not None else None

    def sources(self) -> list[str]:
        """Return the sources that have entries waiting (not claimed)."""
        return self._queue.sources()

    def has_room(self, entries: int) -> bool:
        """Tell whether a batch fits without eviction; any batch fits an empty buffer."""
        total = self.entries
        return total == 0 or (total + entries <= self.max_entries and self.size_bytes < self.max_bytes)

    def _live(self) -> list[Extent]:
        extents = [*(self._claim.extents if self._claim is not None else ()), *self._queue]
        extents.sort(key=lambda extent: extent.order)
        return extents

    def _header(self) -> Header:
        return Header(
            instance=self.custody.instance,
            bootId=self._boot_id,
            nextSeq=self._next_seq,
            rejectedTotal=self.rejected_total,
            dropped=self.dropped,
            offsets=self.offsets,
        )

    # Opening and closing

    def open(self) -> Loaded:
        """Read the journal back and make it ready; return what was found.

        What is over the limits stays: the agent before may have let it in while the backend took data, which that
        may still do. It goes as soon as an entry needs its room or a request fails.
        """
        loaded = self.custody.open()
        self._next_seq = loaded.next_seq
        self._adopt(loaded)
        self.custody.settle(loaded)
        self._written = self.dropped
        return loaded

    def _adopt(self, loaded: Loaded) -> None:
        """Put what a journal held before everything else."""
        for place, extent in enumerate(loaded.extents, start=-len(loaded.extents)):
            extent.order = place
        self._queue.push_back(loaded.extents)
        mine = self.dropped
        self.dropped = Dropped(
            total=loaded.dropped.total + mine.total + loaded.lost,
            unreported=loaded.dropped.unreported + mine.unreported,
            since=loaded.dropped.since or mine.since,
            until=mine.until or loaded.dropped.until,
        )
        self.rejected_total += loaded.rejected_total
        for pipe, offset in loaded.offsets.items():
            self.offsets.setdefault(pipe, offset)

    def close(self) -> None:
        """Sync and close the journal; blocks for the disk."""
        self.custody.close()

    # Taking in

    def append(self, batch: Batch, *, evict: bool = True, kind: Kind = "log", counters: bool = False) -> int:
        """Number, encode and write a batch, evicting what is too old; return its first sequence number.

        Returns once the batch is in the journal (not: on the disk) or in memory while the disk refuses.
        Without `evict` the limits may be exceeded by this batch, until entries come back from a failed request.
        A "notice" is evicted last; `counters` writes the drop counters down with it.
        """
        count = len(batch.messages)
        first = self._next_seq
        if count:
            pipe = batch.pipe or f"{batch.source}:{batch.stream}"
            offsets = {} if batch.offset is None else {pipe: batch.offset}
            extent = self._extent(count, batch.source, batch.timestamp, kind)
            pieces = encode_batch(batch, first)
            drops = self._evict(count, sum(map(len, pieces))) if evict else []
            self._put(extent, pieces, offsets=offsets, drops=drops, counters=counters)
            if evict:
                self._evict_surplus()
            if self._tap is not None:
                self._tap(batch.source, count, pieces)
        return first

    def append_alert(self, alert: Alert) -> int:
        """Write an alert; return its number. 1,000 wait at most, a further one of a script raises a count."""
        extent = self._extent(1, alert.source, alert.timestamp, "alert")
        waiting = self._queue.newest_alert(alert.source)
        if self._queue.alerts < MOST_ALERTS or waiting is None:
            line = encode_alert(alert)
            drops = [*self._drop_alerts(MOST_ALERTS - 1), *self._evict(1, len(line))]
            self._put(extent, [line], drops=drops)
            self._evict_surplus()
            return extent.first
        payload = self.custody.payload(waiting)
        if payload is not None:
            older = msgspec.json.decode(payload, type=Alert)
            alert = msgspec.structs.replace(older, repeated=older.repeated + 1 + alert.repeated)
        self._put(extent, [encode_alert(alert)], replaces=waiting)
        return extent.first

    def _extent(self, count: int, source: str, at: str, kind: Kind) -> Extent:
        first = self._next_seq
        self._next_seq += count
        self._order += 1
        return Extent(
            order=self._order,
            instance=self.custody.instance,
            first=first,
            last=self._next_seq - 1,
            offset=-1,
            size=0,
            source=source,
            at=at,
            kind=kind,
        )

    def _put(
        self,
        extent: Extent,
        pieces: list[bytes],
        *,
        offsets: dict[str, int] | None = None,
        drops: list[Range] | None = None,
        replaces: Extent | None = None,
        counters: bool = False,
    ) -> None:
        extent.size = sum(map(len, pieces))
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        counters = counters or self.dropped is not self._written
        self._written = self.dropped
        if offsets:
            self.offsets.update(offsets)
        record = Record(
            first=extent.first,
            last=extent.last,
            bytes=extent.size,
            crc32=crc,
            source=extent.source,
            at=extent.at,
            kind=extent.kind,
            offsets=offsets or {},
            ack=self.custody.let_go([replaces]) if replaces is not None else (),
            drop=drops or (),
            dropped=self.dropped if counters else None,
        )
        self.custody.put(extent, pieces, record)
        if replaces is not None:
            self._queue.replace_newest_alert(extent)
        else:
            self._queue.push(extent)

    # Handing out

    def claim(self, sources: Collection[str], max_entries: int, max_bytes: int) -> Claim | None:
        """Take out the oldest entries of these sources for one request: one instance, or one alert.

        At least one entry, whatever its size. None when nothing waits.
        """
        assert self._claim is None
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
        self._claim = Claim(extents=taken, entries=entries, bytes=size, instance=first.instance, alert=first.alert)
        return self._claim

    def _part(self, extent: Extent, room: int, space: int, *, must: bool) -> Extent | None:
        """Take out as much of a waiting head as fits; with `must` at least one entry."""
        if (extent.count <= room and extent.size <= space) or (must and extent.count == 1):
            self._queue.pop(extent)
            return extent
        payload = self.custody.payload(extent) if room > 0 and space > 0 else None
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

    def read(self, claim: Claim) -> Sequence[bytes] | None:
        """Return the claim's lines, one piece an extent; None when any cannot be read (see `lose`)."""
        pieces = [self.custody.payload(extent) for extent in claim.extents]
        whole = [piece for piece in pieces if piece is not None]
        return whole if len(whole) == len(pieces) else None

    def ack(self, claim: Claim) -> None:
        """Note that the claim's entries are delivered."""
        self._end(claim)
        ranges = self.custody.let_go(claim.extents)
        if ranges:
            self.custody.mark(Mark(ack=ranges))

    def ack_first(self, claim: Claim, entries: int, size: int) -> Claim | None:
        """Note that the first `entries`, `size` bytes, are delivered; return what is left of the claim."""
        done = self._split_claim(claim, entries, size)
        ranges = self.custody.let_go(done)
        if ranges:
            self.custody.mark(Mark(ack=ranges))
        return self._claim

    def reject_first(self, claim: Claim, size: int) -> Claim | None:
        """Note that the first entry, `size` bytes, is set aside for good; return what is left of the claim."""
        done = self._split_claim(claim, 1, size)
        self.rejected_total += 1
        self.custody.mark(Mark(ack=self.custody.let_go(done), rejectedTotal=self.rejected_total))
        return self._claim

    def _split_claim(self, claim: Claim, entries: int, size: int) -> list[Extent]:
        """Take the first `entries` out of the claim."""
        if entries >= claim.entries:
            self._end(claim)
            return list(claim.extents)
        done: list[Extent] = []
        rest = list(claim.extents)
        left = entries
        while left and rest[0].count <= left:
            done.append(rest.pop(0))
            left -= done[-1].count
        if left:
            done.append(rest[0].split(left, size - sum(extent.size for extent in done)))
        self._claim = msgspec.structs.replace(
            claim, extents=rest, entries=claim.entries - entries, bytes=claim.bytes - size
        )
        return done

    def lose(self, claim: Claim) -> None:
        """Give up what of the claim cannot be read any more; the rest waits again."""
        self._end(claim)
        gone = [extent for extent in claim.extents if self.custody.payload(extent) is None]
        self._queue.push_back(extent for extent in claim.extents if extent not in gone)
        self._mark_dropped([ended for extent in gone for ended in self._drop(extent)])

    def release(self, claim: Claim) -> None:
        """Put the claim's entries back; what is over the limits goes now."""
        self._end(claim)
        self._queue.push_back(claim.extents)
        self._evict_surplus()

    def _end(self, claim: Claim) -> None:
        assert claim is self._claim
        self._claim = None

    # Giving up

    def limit(self, max_entries: int, max_bytes: int) -> None:
        """Set new limits and evict what is over them."""
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._evict_surplus()

    def report_drops(self, describe: Callable[[Dropped], Batch]) -> None:
        """Append what `describe` says of the unreported drops; one write records both."""
        told = self.dropped
        if told.unreported:
            self.dropped = Dropped(total=told.total)
            self.append(describe(told), kind="notice", counters=True)

    def _evict_surplus(self) -> None:
        if self._queue.entries > self.max_entries or self._queue.bytes > self.max_bytes:
            self._mark_dropped([*self._evict(0, 0), *self._evict(0, 0, lasting=True)])

    def _mark_dropped(self, ranges: list[Range]) -> None:
        if self.dropped is not self._written:
            self._written = self.dropped
            self.custody.mark(Mark(drop=ranges, dropped=self.dropped))

    def _evict(self, entries: int, size: int, *, lasting: bool = False) -> list[Range]:
        """Make room for so much more by dropping the oldest log entries, or what is meant to last longest."""
        queue = self._queue
        ranges: list[Range] = []
        most_entries = max(self.max_entries - entries, 0)
        most_bytes = max(self.max_bytes - size, 0)
        while queue.entries > most_entries or queue.bytes > most_bytes:
            extent = queue.oldest(lasting=lasting)
            if extent is None:
                break
            ranges += self._drop(self._trim(extent, queue.entries - most_entries, queue.bytes - most_bytes))
        return ranges

    def _trim(self, extent: Extent, surplus: int, excess: int) -> Extent:
        """Take out the oldest `surplus` entries and `excess` bytes of a waiting extent, or all of it."""
        payload = None
        if extent.count > surplus and extent.size > excess:
            payload = self.custody.payload(extent)
        if payload is not None:
            end = end_of_lines(payload, surplus) if surplus > 0 else 0
            if excess > end:
                end = payload.index(b"\n", excess - 1) + 1
            if end < extent.size:
                return self._queue.split(extent, payload.count(b"\n", 0, end), end)
        self._queue.pop(extent)
        return extent

    def _drop_alerts(self, most: int) -> list[Range]:
        ranges: list[Range] = []
        while self._queue.alerts > most:
            oldest = self._queue.oldest(lasting=True)
            assert oldest is not None
            self._queue.pop(oldest)
            ranges += self._drop(oldest)
        return ranges

    def _drop(self, extent: Extent) -> list[Range]:
        old = self.dropped
        self.dropped = Dropped(
            total=old.total + extent.count,
            unreported=old.unreported + extent.count,
            since=min(old.since or extent.at, extent.at),
            until=max(old.until or extent.at, extent.at),
        )
        return self.custody.let_go([extent])


def end_of_lines(payload: bytes, lines: int) -> int:
    """Return the offset behind the first `lines` lines."""
    return len(payload) - len(payload.split(b"\n", lines)[-1])
