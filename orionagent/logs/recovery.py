"""Owns how a journal is read back after whatever happened to it: what is intact, what is not, where it ends.

Knows nothing of descriptors: it reads through a function, in bounded pieces, and never raises on content.
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from orionagent.logs.journal import (
    ALERT_START,
    ENTRY_START,
    Control,
    Dropped,
    Header,
    Kind,
    Mark,
    Ranges,
    Record,
    decode_control,
)
from orionagent.logs.pile import Packing, Pile
from orionagent.wire import Alert, Entry

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""(offset, size) -> up to size bytes; shorter only at the end of the file."""

CHUNK_BYTES = 1 << 20
LONGEST_LINE_BYTES = 8 << 20


class Intact(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """A batch whose checksum holds. `instance` None: its header is lost."""

    instance: str | None
    first: int
    last: int
    offset: int
    size: int
    source: str
    at: str
    kind: Kind


class Damaged(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """A stretch that no checksum vouches for; `record` is what its batch should have been, where known."""

    offset: int
    size: int
    record: Record | None


Part: TypeAlias = Intact | Damaged
_PACKING: Packing[Part] = Packing(Part)


class Recovered(msgspec.Struct, kw_only=True):
    """What a journal holds. `end`: where the next line may be written, a torn tail being cut off there."""

    header: Header | None = None
    parts: Pile[Part] = msgspec.field(default_factory=lambda: Pile(_PACKING))
    done: Ranges = msgspec.field(default_factory=Ranges)
    offsets: dict[str, int] = msgspec.field(default_factory=dict)
    dropped: Dropped = msgspec.field(default_factory=Dropped)
    rejected_total: int = 0
    next_seq: int = 1
    end: int = 0
    cut_bytes: int = 0
    damaged: bool = False
    foreign_boot: bool = False


class Salvaged(msgspec.Struct, kw_only=True):
    """The readable lines of a damaged stretch and how many entries are gone for good."""

    lines: list[Entry | Alert] = msgspec.field(default_factory=list)
    lost: int = 0


def scan(read: ReadAt, size: int, boot_id: str) -> Recovered:
    """Return what the journal's first `size` bytes hold, for an agent that runs under `boot_id`.

    A tail without its record was written by a killed agent: under the same boot its bytes are still in the
    scripts' pipes, so it is cut off; after another boot it is all there is and counts as damaged.
    """
    return _Scanner(read, size, boot_id).run()


class _Scanner:
    """One pass over a journal. Sole writer of its findings."""

    def __init__(self, read: ReadAt, size: int, boot_id: str) -> None:
        self._read = read
        self._size = size
        self._boot_id = boot_id
        self._found = Recovered()
        self._region = 0
        self._foreign_end = 0
        self._seen: dict[str | None, int] = {}

    def run(self) -> Recovered:
        found = self._found
        for offset, line in split_lines(self._read, self._size):
            if line is None:
                self._foreign_end = offset
                continue
            if line.startswith(ENTRY_START):
                continue
            position = offset + len(line) + 1
            control = decode_control(line)
            if control is None and position > self._size:
                # The last newline is gone or flipped: the record before it may still hold.
                control = decode_control(line[:-1])
            if control is None:
                if position <= self._size:
                    self._foreign_end = position
                continue
            if position > self._size:
                found.damaged = True
            self._control(control, offset)
            self._region = self._foreign_end = min(position, self._size)
        self._tail()
        pairs = found.done.pairs()
        if pairs:
            found.next_seq = max(found.next_seq, pairs[-1][1] + 1)
        return found

    def _control(self, control: Control, offset: int) -> None:
        found = self._found
        if isinstance(control, Record):
            self._record(control, offset)
            if control.ack or control.drop:
                found.done.add(control.ack)
                found.done.add(control.drop)
            found.offsets.update(control.offsets)
            found.dropped = control.dropped or found.dropped
        else:
            self._orphan(offset)
            found.dropped = control.dropped or found.dropped
        if isinstance(control, Header):
            found.header = control
            found.next_seq = max(found.next_seq, control.nextSeq)
            found.rejected_total = max(found.rejected_total, control.rejectedTotal)
            found.offsets.update(control.offsets)
        elif isinstance(control, Mark):
            found.done.add(control.ack)
            found.done.add(control.drop)
            found.rejected_total = max(found.rejected_total, control.rejectedTotal or 0)

    def _record(self, record: Record, offset: int) -> None:
        found = self._found
        found.next_seq = max(found.next_seq, record.last + 1)
        start = offset - record.bytes
        instance = found.header.instance if found.header is not None else None
        if start < self._region or self._crc32(start, record.bytes) != record.crc32:
            found.damaged = True
            found.parts.append(Damaged(offset=self._region, size=offset - self._region, record=record))
            return
        self._orphan(start)
        if record.first <= self._seen.get(instance, 0):
            found.damaged = True  # a repeated stretch: its entries are here already
            return
        self._seen[instance] = record.last
        found.damaged = found.damaged or instance is None
        source = sys.intern(record.source)
        found.parts.append(
            Intact(instance, record.first, record.last, start, record.bytes, source, record.at, record.kind)
        )

    def _orphan(self, end: int) -> None:
        """Note that nothing vouches for what lies between the last control line and `end`."""
        if end > self._region:
            self._found.damaged = True
            self._found.parts.append(Damaged(offset=self._region, size=end - self._region, record=None))

    def _tail(self) -> None:
        found = self._found
        same_boot = found.header is not None and found.header.bootId == self._boot_id
        found.foreign_boot = not same_boot and self._size > 0
        found.end = max(self._foreign_end if same_boot else self._size, self._region)
        self._orphan(found.end)
        found.cut_bytes = self._size - found.end

    def _crc32(self, offset: int, size: int) -> int | None:
        crc = 0
        while size > 0:
            chunk = self._read(offset, min(size, CHUNK_BYTES))
            if not chunk:
                return None
            crc = zlib.crc32(chunk, crc)
            offset += len(chunk)
            size -= len(chunk)
        return crc


def split_lines(read: ReadAt, size: int, offset: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """Yield (offset, line without newline) up to `size`; (end, None) for one longer than 8 MiB.

    The last line may lack its newline: its end then lies at `size`.
    """
    end, carry, skipping = size, b"", False
    while offset + len(carry) < end:
        start = offset + len(carry)
        chunk = read(start, min(CHUNK_BYTES, end - start))
        if not chunk:
            break
        lines = (carry + chunk).split(b"\n")
        carry = lines.pop()
        for line in lines:
            if skipping:
                skipping = False
                yield offset + len(line) + 1, None
            else:
                yield offset, line
            offset += len(line) + 1
        if skipping or len(carry) > LONGEST_LINE_BYTES:
            skipping = True
            offset += len(carry)
            carry = b""
    if skipping:
        yield min(offset + len(carry), end), None
    elif carry:
        yield offset, carry


def salvage(read: ReadAt, part: Damaged, done: Ranges) -> Salvaged:
    """Return the readable lines of a damaged stretch that were not delivered before."""
    record = part.record
    if record is not None and not done.missing(record.first, record.last):
        return Salvaged()
    result, unreadable, previous, number = Salvaged(), 0, 0, 0
    for _, line in split_lines(read, part.offset + part.size, part.offset):
        entry = _decode(line)
        if entry is None:
            unreadable += _looks_like_entry(line)
            number += 1
            continue
        if isinstance(entry, Entry):
            # A flipped digit must not make an undelivered line look delivered: its place must agree.
            plausible = entry.seq in ((record.first + number,) if record else (previous + 1,))
            previous = entry.seq
            if plausible and not done.missing(entry.seq, entry.seq):
                number += 1
                continue
        number += 1
        result.lines.append(entry)
    if record is not None:
        waiting = sum(last - first + 1 for first, last in done.missing(record.first, record.last))
        result.lost = max(waiting - len(result.lines), 0)
    else:
        result.lost = unreadable
    return result


def _decode(line: bytes | None) -> Entry | Alert | None:
    if line is None:
        return None
    try:
        if line.startswith(ENTRY_START):
            return msgspec.json.decode(line, type=Entry)
        if line.startswith(ALERT_START):
            return msgspec.json.decode(line, type=Alert)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None


def _looks_like_entry(line: bytes | None) -> bool:
    """Tell whether an unreadable line was an entry rather than a record, padding or a blank line."""
    if line is None or line.startswith(ENTRY_START):
        return True
    return b'"check":' not in line and bool(line.strip(b"\0 \t\r"))
