"""Owns long queues of small records: those at either end are objects, those between are packed.

Knows nothing of what the records mean.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

BUNDLE = 64
"""Records packed together: an extent takes some 20 bytes then, as an object with its numbers and strings 400."""

T = TypeVar("T")

Chunk: TypeAlias = bytes | Sequence[T]
"""Neighbours: packed, or as they are."""


class Packing(Generic[T]):
    """How records become bytes and back. `kind` is their type, array-like; `loose` tells which stay as they are."""

    def __init__(self, kind: Any, loose: Callable[[T], bool] | None = None) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(list[kind])
        self._loose = loose

    def pack(self, records: list[T]) -> Chunk[T]:
        """Return the records in as little memory as they let themselves be put."""
        if self._loose is not None and any(map(self._loose, records)):
            return records
        return zlib.compress(self._encoder.encode(records), 1)

    def unpack(self, chunk: Chunk[T]) -> Sequence[T]:
        """Return a chunk's records: new objects, if it was packed."""
        if isinstance(chunk, bytes):
            records: list[T] = self._decoder.decode(zlib.decompress(chunk))
            return records
        return chunk

    def amend(self, chunk: Chunk[T], change: Callable[[T], None]) -> Chunk[T]:
        """Return a chunk with every record of it changed."""
        records = list(self.unpack(chunk))
        for record in records:
            change(record)
        return self.pack(records)


class Pile(Generic[T]):
    """A queue, oldest first. A record keeps its identity from the time it is at the front until it is taken.

    `front` is for reading: the oldest few records, none only if there are none at all.
    """

    def __init__(self, packing: Packing[T]) -> None:
        self._packing = packing
        self.front: deque[T] = deque()
        self._middle: deque[Chunk[T]] = deque()
        self._back: deque[T] = deque()

    def __len__(self) -> int:
        return len(self.front) + BUNDLE * len(self._middle) + len(self._back)

    def __bool__(self) -> bool:
        return bool(self.front)

    def __iter__(self) -> Iterator[T]:
        yield from self.front
        for chunk in self._middle:
            yield from self._packing.unpack(chunk)
        yield from self._back

    def append(self, record: T) -> None:
        """Add the youngest record."""
        if not self.front:
            self.front.append(record)
            return
        back = self._back
        back.append(record)
        if len(back) >= 2 * BUNDLE:
            self._middle.append(self._packing.pack([back.popleft() for _ in range(BUNDLE)]))

    def appendleft(self, record: T) -> None:
        """Add a record that is older than all."""
        front = self.front
        front.appendleft(record)
        if len(front) >= 2 * BUNDLE:
            self._middle.appendleft(self._packing.pack([front.pop() for _ in range(BUNDLE)][::-1]))

    def popleft(self) -> T:
        """Take out the oldest record. Raises IndexError when there is none."""
        record = self.front.popleft()
        if not self.front:
            if self._middle:
                self.front.extend(self._packing.unpack(self._middle.popleft()))
            elif self._back:
                self.front, self._back = self._back, self.front
        return record

    def drain(self) -> Iterator[T]:
        """Take out one record after the other."""
        while self.front:
            yield self.popleft()

    def loose(self) -> Iterator[T]:
        """Yield the records that are not packed, oldest first."""
        yield from self.front
        for chunk in self._middle:
            if not isinstance(chunk, bytes):
                yield from chunk
        yield from self._back

    # All at once, while the queue goes on

    def chunks(self) -> list[Chunk[T]]:
        """Return what is here now, for another thread: copies, and what never changes."""
        middle = [chunk if isinstance(chunk, bytes) else list(map(copy, chunk)) for chunk in self._middle]
        return [list(map(copy, self.front)), *middle, list(map(copy, self._back))]

    def update(self, change: Callable[[T], None], changed: Mapping[int, Chunk[T]]) -> None:
        """Change every record; `changed` has chunks, by their identity, to which that was done already."""
        middle: deque[Chunk[T]] = deque()
        for chunk in self._middle:
            done = changed.get(id(chunk)) if isinstance(chunk, bytes) else None
            middle.append(self._packing.amend(chunk, change) if done is None else done)
        self._middle = middle
        for ends in (self.front, self._back):
            for record in ends:
                change(record)
