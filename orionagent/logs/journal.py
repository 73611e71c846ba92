"""Owns the line formats of the journal `buffer.jsonl`: header, batch record, marks, and their checksums.

Knows nothing of files, of where lines stand in one, or of what becomes of them.

    {"instance":..,"bootId":..,"nextSeq":..,...,"check":..}        what follows belongs to this instance
    {"seq":17,...}                                                 an entry, exactly the wire's bytes
    {"first":17,"last":40,"bytes":..,"crc32":..,...,"check":..}    the batch that ends here
    {"ack":[[17,30]],"check":..}   {"drop":[[31,33]],...}          delivered; given up

Entry lines are vouched for by their batch record's `crc32`, every other line by its own `check`: a flipped
digit in an acknowledgement would otherwise lose entries silently.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

ENTRY_START = b'{"seq":'
ALERT_START = b'{"id":'
CHECK = b',"check":'

Kind: TypeAlias = Literal["log", "notice", "alert"]
"""Entries of a script; the agent's word about drops; an alert. The latter two are given up last."""

Range: TypeAlias = tuple[int, int]
"""First and last sequence number, both included."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was given up: in all, and since the last `warn` entry that told of it (RFC 3339 times)."""

    total: int = 0
    unreported: int = 0
    since: str | None = None
    until: str | None = None


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Opens the part of an instance; carries what compaction would otherwise forget."""

    instance: str
    bootId: str
    nextSeq: int = 1
    rejectedTotal: int = 0
    dropped: Dropped | None = None
    offsets: Mapping[str, int] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Closes a batch: the `bytes` before this line are the entries `first` to `last` of one source.

    `offsets` maps a pipe ("script:stream") to the byte offset behind these lines. `ack` and `drop` are
    entries that ended by this very append (merged alerts, evictions), so that one write does both.
    """

    first: int
    last: int
    bytes: int
    crc32: int
    source: str
    at: str
    kind: Kind = "log"
    offsets: Mapping[str, int] = {}
    ack: Sequence[Range] = ()
    drop: Sequence[Range] = ()
    dropped: Dropped | None = None


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ends entries: delivered or set aside (`ack`), given up (`drop`)."""

    ack: Sequence[Range] = ()
    drop: Sequence[Range] = ()
    dropped: Dropped | None = None
    rejectedTotal: int | None = None


Control: TypeAlias = Header | Record | Mark

_ENCODER = msgspec.json.Encoder()
_KINDS: tuple[tuple[bytes, type[Control]], ...] = (
    (b'{"first":', Record),
    (b'{"ack":', Mark),
    (b'{"drop', Mark),
    (b'{"rejectedTotal":', Mark),
    (b'{"instance":', Header),
)


def encode_control(line: Control) -> bytes:
    """Return the line with its check, newline included."""
    body = _ENCODER.encode(line)[:-1]
    return b"%b%b%d}\n" % (body, CHECK, zlib.crc32(body))


def decode_control(line: bytes) -> Control | None:
    """Return what a line without its newline says, None for anything whose check does not hold."""
    kind = next((kind for start, kind in _KINDS if line.startswith(start)), None)
    if kind is None:
        return None
    body, found, check = line.rpartition(CHECK)
    if not found or check != b"%d}" % zlib.crc32(body):
        return None
    try:
        control: Control = msgspec.json.decode(body + b"}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(control, Record) and not (0 < control.first <= control.last and control.bytes > 0):
        return None
    return control


class Ranges:
    """A set of sequence numbers, kept as sorted, disjoint ranges. Sole writer of them."""

    def __init__(self) -> None:
        self._pairs: list[Range] = []
        self._sorted = True

    def add(self, pairs: Sequence[Range]) -> None:
        """Add ranges; cheap, sorting waits for the first question."""
        self._pairs.extend(pairs)
        self._sorted = False

    def pairs(self) -> list[Range]:
        """Return the disjoint ranges in ascending order."""
        if not self._sorted:
            merged: list[Range] = []
            for first, last in sorted(self._pairs):
                if merged and first <= merged[-1][1] + 1:
                    merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
                else:
                    merged.append((first, last))
            self._pairs, self._sorted = merged, True
        return self._pairs

    def missing(self, first: int, last: int) -> list[Range]:
        """Return the parts of `first..last` that are not in the set."""
        gaps: list[Range] = []
        pairs = self.pairs()
        low, high = 0, len(pairs)
        while low < high:
            middle = (low + high) // 2
            if pairs[middle][1] < first:
                low = middle + 1
            else:
                high = middle
        for start, stop in pairs[low:]:
            if start > last:
                break
            if start > first:
                gaps.append((first, start - 1))
            first = stop + 1
        if first <= last:
            gaps.append((first, last))
        return gaps
