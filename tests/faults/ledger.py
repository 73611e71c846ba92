"""Owns what a backend that may be killed has taken: a file of whole requests, and the account drawn up from it.

Knows nothing of HTTP. A request's entries go into the file by one write before it is answered; what a SIGKILL cut off
is removed at the next start, as a database would.
"""

import os
import re
import struct
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

LENGTH = struct.Struct(">Q")
LINE = re.compile("(?:out|err|line) ([0-9]+)(?: x*)?")
OWN_SOURCE = "orion-agent"


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One entry line as far as the account needs it."""

    seq: int
    source: str
    stream: str
    message: str
    metadata: Any = None


class WireEntry(msgspec.Struct, frozen=True, gc=False):
    """The same as it travels."""

    seq: int
    source: str
    stream: str
    message: str
    metadata: Any = None


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """One request."""

    instance: str
    entries: list[Entry]


class Ledger:
    """The file, in the backend's process. Sole writer of it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._decoder = msgspec.json.Decoder(WireEntry)
        self._encoder = msgspec.msgpack.Encoder()
        whole = sum(LENGTH.size + len(data) for data in read_records(self._fd, 0))
        os.ftruncate(self._fd, whole)

    def add(self, instance: str, body: bytes) -> None:
        """Keep a request's entries."""
        entries = [
            Entry(found.seq, found.source, found.stream, found.message, found.metadata)
            for found in self._decoder.decode_lines(body)
        ]
        data = self._encoder.encode(Arrival(instance, entries))
        record = memoryview(LENGTH.pack(len(data)) + data)
        while record:
            record = record[os.write(self._fd, record) :]


def read_records(fd: int, start: int) -> Iterator[bytes]:
    """Yield the whole records from byte `start` on."""
    while True:
        head = os.pread(fd, LENGTH.size, start)
        if len(head) < LENGTH.size:
            return
        (size,) = LENGTH.unpack(head)
        data = os.pread(fd, size, start + LENGTH.size)
        if len(data) < size:
            return
        yield data
        start += LENGTH.size + size


class Stream:
    """One stream's line numbers."""

    def __init__(self) -> None:
        self._seen = bytearray()
        self._by_seq: dict[str, array[int]] = {}
        self.received = 0
        self.twice: list[int] = []

    def take(self, instance: str, seq: int, number: int) -> None:
        """Note a line that came under a (instance, seq) not seen before."""
        by_seq = self._by_seq.setdefault(instance, array("I"))
        if seq >= len(by_seq):
            by_seq.frombytes(bytes(by_seq.itemsize * (seq + 65536 - len(by_seq))))
        by_seq[seq] = number
        if number >= len(self._seen):
            self._seen.extend(bytes(max(number + 1 - len(self._seen), 65536)))
        if self._seen[number]:
            self.twice.append(number)
            return
        self._seen[number] = 1
        self.received += 1

    def disordered(self) -> int:
        """Return how many lines do not follow, by seq, what was written before them.

        The moment of arrival says nothing: a request that hung may be read long after its sender was killed.
        """
        return sum(
            later <= earlier
            for by_seq in self._by_seq.values()
            for earlier, later in pairwise(number for number in by_seq if number)
        )

    def gaps(self, written: int) -> list[tuple[int, int]]:
        """Return the runs of lines from 1 to `written` that are not there."""
        seen = self._seen + bytes(max(written + 1 - len(self._seen), 0))
        found = []
        at = 1
        while (first := seen.find(b"\0", at, written + 1)) >= 0:
            after = seen.find(b"\1", first, written + 1)
            at = after if after >= 0 else written + 1
            found.append((first, at - 1))
        return found


class Account:
    """What has arrived, de-duplicated by (instance, seq). Reads the ledger on as it grows."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._seqs: dict[str, bytearray] = {}
        self._decoder = msgspec.msgpack.Decoder(Arrival)
        self.streams: dict[str, Stream] = {}
        self.entries = 0
        self.duplicates = 0
        self.reported: list[dict[str, Any]] = []
        self.remarks: list[str] = []

    @property
    def instances(self) -> int:
        """Return how many instances the agent has had."""
        return len(self._seqs)

    @property
    def received(self) -> int:
        """Return how many different lines arrived."""
        return sum(stream.received for stream in self.streams.values())

    @property
    def dropped(self) -> int:
        """Return how many entries the agent itself said it had dropped."""
        return sum(said["dropped"] for said in self.reported)

    def read(self) -> "Account":
        """Take in what has arrived since; return self."""
        fd = os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC)
        try:
            for data in read_records(fd, self._offset):
                self._offset += LENGTH.size + len(data)
                self._take(self._decoder.decode(data))
        finally:
            os.close(fd)
        return self

    def _take(self, arrival: Arrival) -> None:
        seqs = self._seqs.setdefault(arrival.instance, bytearray())
        highest = max((entry.seq for entry in arrival.entries), default=0)
        if highest >= len(seqs):
            seqs.extend(bytes(highest + 65536 - len(seqs)))
        for entry in arrival.entries:
            if seqs[entry.seq]:
                self.duplicates += 1
                continue
            seqs[entry.seq] = 1
            self.entries += 1
            if entry.source != OWN_SOURCE:
                line = LINE.fullmatch(entry.message)
                if line is None:
                    self.remarks.append(f"not a line that was written: {entry}")
                else:
                    self.streams.setdefault(entry.stream, Stream()).take(arrival.instance, entry.seq, int(line[1]))
            elif entry.metadata and "dropped" in entry.metadata:
                self.reported.append(entry.metadata)
            else:
                self.remarks.append(entry.message)
