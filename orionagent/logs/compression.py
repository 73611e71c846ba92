"""Owns whether a request body is compressed: only where that gets lines to the backend sooner.

Knows nothing of requests; it is told how long they took.
"""

import time
import zlib
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

ONE_PACKET_BYTES = 1400
TELLING_BYTES = 16 << 10
"""Smaller bodies take as long as the round trip does, compressed or not: nothing is learnt from them."""

EXPLORE_EVERY = 64
SMOOTHING = 0.3
PLAIN_ADVANTAGE = 0.9
"""Uncompressed is taken when it is at most this much slower: it spares the CPU."""


def is_loopback(url: str) -> bool:
    """Tell whether an address names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Compression:
    """Chooses by the seconds a byte took either way, looking at the other way now and then.

    Never for this machine, for a body that fits one packet, or for a backend that refused it.
    """

    def __init__(self, url: str) -> None:
        self._never = is_loopback(url)
        self._cost: dict[bool, float] = {}
        self._since_explored = 0

    def pays(self, size: int) -> bool:
        """Tell whether to compress a body of `size` bytes."""
        if self._never or size <= ONE_PACKET_BYTES:
            return False
        plain, packed = self._cost.get(False), self._cost.get(True)
        if packed is None:
            return True
        if plain is None:
            return size < TELLING_BYTES
        choice = packed < plain * PLAIN_ADVANTAGE
        if size >= TELLING_BYTES:
            self._since_explored += 1
            if self._since_explored >= EXPLORE_EVERY:
                self._since_explored = 0
                return not choice
        return choice

    def note(self, size: int, took_s: float, *, packed: bool) -> None:
        """Learn from a request that succeeded: its uncompressed size, and its time with the packing."""
        if self._never or size < TELLING_BYTES:
            return
        cost, known = took_s / size, self._cost.get(packed)
        self._cost[packed] = cost if known is None else known + SMOOTHING * (cost - known)

    def forbid(self) -> None:
        """Never compress again: the backend does not understand it."""
        self._never = True


def compress(body: bytes, run: Callable[[Callable[[], bytes]], bytes]) -> tuple[bytes, float]:
    """Return the gzip of a body and the seconds it took; large ones are packed within `run`."""
    started = time.monotonic()
    packed = run(lambda: _pack(body)) if len(body) > 256 << 10 else _pack(body)
    return packed, time.monotonic() - started


def _pack(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()
