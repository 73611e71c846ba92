"""Owns `Edges`: word of new bytes in pipes that are not emptied by looking at them.

Knows nothing of what the pipes carry. An unfinished line stays in its pipe, which is therefore always readable;
only an edge-triggered watch can tell that something was added without a timer that ticks for ever.
"""

from collections.abc import Callable

import gevent
from gevent.monkey import get_original

epoll = get_original("select", "epoll")
ARMED = 0x001 | 0x80000000  # EPOLLIN | EPOLLET
DISARMED = 0x80000000


class Edges:
    """One epoll instance below gevent's loop for all pipes. Sole writer of its registrations."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)
        self._watcher.start(self._ready)

    def __repr__(self) -> str:
        return f"Edges({len(self._callbacks)} pipes)"

    def add(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` (from the hub: it must not block) at each edge while `fd` is armed."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, DISARMED)

    def arm(self, fd: int) -> None:
        """Listen; if the pipe holds anything already, one callback follows at once."""
        self._epoll.modify(fd, ARMED)

    def disarm(self, fd: int) -> None:
        """Stop listening: a writer of many small lines must not wake us for each."""
        self._epoll.modify(fd, DISARMED)

    def remove(self, fd: int) -> None:
        """Forget a descriptor; call before closing it."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Stop watching everything."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()
        self._callbacks.clear()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
