"""Owns the recent past: each source's last entries for `orion logs`, and those who follow along.

Knows nothing of the journal or of delivery; it keeps encoded lines and decodes only what is asked for.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from gevent.event import Event

MOST_ENTRIES = 1000
MOST_BYTES = 128 << 10
FOLLOWER_BYTES = 1 << 20


class _Recent:
    """The last lines of one source, in pieces of whole lines."""

    __slots__ = ("entries", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: deque[tuple[int, int, bytes]] = deque()
        self.entries = 0
        self.size = 0

    def add(self, order: int, count: int, payload: bytes) -> None:
        if len(payload) > MOST_BYTES:
            payload = payload[payload.index(b"\n", len(payload) - MOST_BYTES - 1) + 1 :]
            count = payload.count(b"\n")
        self.pieces.append((order, count, payload))
        self.entries += count
        self.size += len(payload)
        while self.pieces:
            _, oldest, first = self.pieces[0]
            if self.entries - oldest < MOST_ENTRIES and self.size <= MOST_BYTES:
                break
            if len(self.pieces) == 1:
                break
            self.pieces.popleft()
            self.entries -= oldest
            self.size -= len(first)


class Follower:
    """Somebody who reads along. One that is slow loses the oldest lines, counted in `lost`; nobody waits.

    Iterating blocks its own greenlet and yields entries as plain dicts until `close`.
    """

    def __init__(self, ring: "Ring", source: str | None) -> None:
        self._ring = ring
        self._source = source
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._more = Event()
        self._closed = False
        self.lost = 0

    def offer(self, source: str, count: int, payload: bytes) -> None:
        """Take a batch if it is one of those wanted; never blocks."""
        if self._source is not None and source != self._source:
            return
        if not self._pieces:
            self._more.set()
        self._pieces.append((count, payload))
        self._size += len(payload)
        while self._size > FOLLOWER_BYTES:
            lost, oldest = self._pieces.popleft()
            self._size -= len(oldest)
            self.lost += lost

    def next(self, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """Block until there are entries, for `timeout_s` at most; an empty list when the time is up."""
        if not self._pieces and not self._closed:
            self._more.clear()
            self._more.wait(timeout_s)
        if not self._pieces:
            return []
        _, payload = self._pieces.popleft()
        self._size -= len(payload)
        return decode_lines(payload)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while not self._closed:
            yield from self.next()

    def close(self) -> None:
        """Stop following; a greenlet that waits in `next` goes on at once."""
        self._closed = True
        self._ring.forget(self)
        self._more.set()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ring:
    """At most 1,000 entries and 128 KiB of each source. Sole writer of them and of the set of followers."""

    def __init__(self) -> None:
        self._recent: dict[str, _Recent] = {}
        self._followers: set[Follower] = set()
        self._order = 0

    def add(self, source: str, count: int, pieces: Sequence[bytes]) -> None:
        """Note a batch of encoded lines."""
        recent = self._recent.get(source)
        if recent is None:
            recent = self._recent[source] = _Recent()
        each = count if len(pieces) == 1 else 0
        for payload in pieces:
            lines = each or payload.count(b"\n")
            self._order += 1
            recent.add(self._order, lines, payload)
            for follower in self._followers:
                follower.offer(source, lines, payload)

    def tail(self, source: str | None, lines: int) -> list[dict[str, Any]]:
        """Return the last entries of a source, or of all in the order they came, as plain dicts."""
        lines = min(lines, MOST_ENTRIES)
        if lines <= 0:
            return []
        chosen = [self._recent[source]] if source in self._recent else []
        if source is None:
            chosen = list(self._recent.values())
        found: list[bytes] = []
        for _, _, payload in sorted((piece for recent in chosen for piece in recent.pieces), reverse=True):
            found = payload.splitlines()[-(lines - len(found)) :] + found
            if len(found) >= lines:
                break
        return decode_lines(b"\n".join(found))

    def follow(self, source: str | None) -> Follower:
        """Return a follower of one source, or of all; close it in the end."""
        follower = Follower(self, source)
        self._followers.add(follower)
        return follower

    def forget(self, follower: Follower) -> None:
        """Remove a follower."""
        self._followers.discard(follower)

    def drop_source(self, source: str) -> None:
        """Forget a source that no longer exists."""
        self._recent.pop(source, None)


def decode_lines(payload: bytes) -> list[dict[str, Any]]:
    """Return encoded lines as plain dicts."""
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in payload.splitlines()]
