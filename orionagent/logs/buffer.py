"""Owns the offline buffer: numbers entries, keeps them until they are delivered or given up, and writes both down.

Knows nothing of the backend, tokens, greenlets, or where bytes lie.
"""

import time
import uuid
import zlib
from collections.abc import Callable, Collection, Sequence

import msgspec

from orionagent.logs.claims import Claim, Claims
from orionagent.logs.custody import Custody
from orionagent.logs.disk import Disk
from orionagent.logs.drops import Drops
from orionagent.logs.encode import encode_alert, encode_batch
from orionagent.logs.eviction import MOST_ALERTS, Eviction
from orionagent.logs.extents import Extent, numbers_of
from orionagent.logs.index import ExtentQueue
from orionagent.logs.journal import Dropped, Header, Kind, Mark, Range, Record
from orionagent.logs.journalfile import JournalFile
from orionagent.logs.loading import Loaded
from orionagent.wire import Alert, Batch


class Buffer:
    """What is not delivered yet, at most as much of it as `limits` says, oldest out.

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
        self._boot_id = boot_id
        self._tap = tap
        self._queue = ExtentQueue()
        self._drops = Drops()
        self._next_seq = 1
        self._order = 0
        self.rejected_total = 0
        self.offsets: dict[str, int] = {}
        self.custody = Custody(
            JournalFile(path, disk),
            boot_id=boot_id,
            index=self._queue,
            adopt=self._adopt,
            header=self._header,
            monotonic=monotonic,
            new_instance=new_instance,
        )
        self._claims = Claims(self._queue, self.custody.payload)
        self.limits = Eviction(self._queue, self.custody.payload, max_entries=max_entries, max_bytes=max_bytes)

    def __repr__(self) -> str:
        return f"Buffer(entries={self.entries}, size_bytes={self.size_bytes}, next_seq={self._next_seq})"

    # What it holds

    @property
    def entries(self) -> int:
        """Return how many entries wait, those of the claim included."""
        claim = self._claims.out
        return self._queue.entries + (claim.entries if claim is not None else 0)

    @property
    def size_bytes(self) -> int:
        """Return how many bytes they take on the wire."""
        claim = self._claims.out
        return self._queue.bytes + (claim.bytes if claim is not None else 0)

    @property
    def dropped(self) -> Dropped:
        """Return what was given up."""
        return self._drops.count

    def oldest_at(self) -> str | None:
        """Return when the oldest waiting entry was read, RFC 3339."""
        heads = [self._queue.oldest(lasting=False), self._queue.oldest(lasting=True)]
        if self._claims.out is not None:
            heads.append(self._claims.out.extents[0])
        return min((extent.at for extent in heads if extent is not None), default=None)

    @property
    def claimed(self) -> Claim | None:
        """Return the claim that is out."""
        return self._claims.out

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
        total, limits = self.entries, self.limits
        return total == 0 or (total + entries <= limits.max_entries and self.size_bytes < limits.max_bytes)

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
        self._drops.note_written()
        return loaded

    def _adopt(self, loaded: Loaded) -> None:
        """Put what a journal held before everything else."""
        self._queue.push_before(loaded.take(first_order=-len(loaded.extents)))
        self._drops.adopt(loaded.dropped, loaded.lost)
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
            gone = self.limits.make_room(count, sum(map(len, pieces))) if evict else ()
            self._put(extent, pieces, offsets=offsets, gone=gone, counters=counters)
            if evict:
                self._evict_surplus()
            if self._tap is not None:
                self._tap(batch.source, count, pieces)
        return first

    def append_alert(self, alert: Alert, *, evict: bool = True) -> int:
        """Write an alert; return its number. 1,000 wait at most, a further one of a script raises a count.

        `evict` as in `append`.
        """
        extent = self._extent(1, alert.source, alert.timestamp, "alert")
        waiting = self._queue.newest_alert(alert.source)
        if self._queue.alerts < MOST_ALERTS or waiting is None:
            line = encode_alert(alert)
            spare = self.limits.spare_alerts()
            self._put(extent, [line], gone=[*spare, *self.limits.make_room(1, len(line))] if evict else spare)
            if evict:
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
        gone: Sequence[Extent] = (),
        replaces: Extent | None = None,
        counters: bool = False,
    ) -> None:
        extent.size = sum(map(len, pieces))
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
        drop = self._give_up(gone) if gone else ()
        counters = self._drops.note_written() or counters
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
            ack=numbers_of([replaces]) if replaces is not None else (),
            drop=drop,
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
        return self._claims.take(sources, max_entries, max_bytes)

    def read(self, claim: Claim) -> Sequence[bytes] | None:
        """Return the claim's lines, one piece an extent; None when any cannot be read (see `lose`)."""
        pieces = [self.custody.payload(extent) for extent in claim.extents]
        whole = [piece for piece in pieces if piece is not None]
        return whole if len(whole) == len(pieces) else None

    def ack(self, claim: Claim) -> None:
        """Note that the claim's entries are delivered."""
        self._claims.end(claim)
        self._mark_done(claim.extents)

    def ack_first(self, claim: Claim, entries: int, size: int) -> Claim | None:
        """Note that the first `entries`, `size` bytes, are delivered; return what is left of the claim."""
        self._mark_done(self._claims.cut(claim, entries, size))
        return self._claims.out

    def reject_first(self, claim: Claim, size: int) -> Claim | None:
        """Note that the first entry, `size` bytes, is set aside for good; return what is left of the claim."""
        done = self._claims.cut(claim, 1, size)
        self.rejected_total += 1
        self.custody.mark(Mark(ack=numbers_of(done), rejectedTotal=self.rejected_total))
        return self._claims.out

    def _mark_done(self, extents: Sequence[Extent]) -> None:
        ranges = numbers_of(extents)
        if ranges:
            self.custody.mark(Mark(ack=ranges))

    def lose(self, claim: Claim) -> None:
        """Give up what of the claim cannot be read any more; the rest waits again."""
        self._claims.end(claim)
        kept: list[Extent] = []
        gone: list[Extent] = []
        for extent in claim.extents:
            (gone if self.custody.payload(extent) is None else kept).append(extent)
        self._queue.push_back(kept)
        self._mark_gone(gone)

    def release(self, claim: Claim) -> None:
        """Put the claim's entries back; what is over the limits goes now."""
        self._claims.end(claim)
        self._queue.push_back(claim.extents)
        self._evict_surplus()

    # Giving up

    def limit(self, max_entries: int, max_bytes: int) -> None:
        """Set new limits and evict what is over them."""
        self.limits.max_entries, self.limits.max_bytes = max_entries, max_bytes
        self._evict_surplus()

    def report_drops(self, describe: Callable[[Dropped], Batch], *, evict: bool = True) -> None:
        """Append what `describe` says of the unreported drops; one write records both. `evict` as in `append`."""
        if self.dropped.unreported:
            self.append(describe(self._drops.report()), evict=evict, kind="notice", counters=True)

    def _evict_surplus(self) -> None:
        gone = self.limits.surplus()
        if gone:
            self._mark_gone(gone)

    def _mark_gone(self, extents: Sequence[Extent]) -> None:
        ranges = self._give_up(extents)
        if self._drops.note_written():
            self.custody.mark(Mark(drop=ranges, dropped=self.dropped))

    def _give_up(self, extents: Sequence[Extent]) -> list[Range]:
        """Count entries as dropped; return those of their numbers that the journal has to learn of."""
        self._drops.add(extents)
        return numbers_of(extents)
