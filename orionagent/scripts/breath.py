"""Owns the pauses in a rush: when many scripts have something to say at once, callers are still heard in between.

Knows nothing of what the greenlets do that pause here.
"""

import time

import gevent
from gevent.event import Event

LONGEST_RUSH_S = 0.01
PAUSE_S = 0.0005
LULL_S = 0.001


class Breath:
    """Shared by greenlets that each stop the loop for some milliseconds. Sole writer of when the rush began.

    The loop runs whatever is ready before it looks at sockets again: fifty ends and starts in a row would be one
    long silence. A single one is never held up.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._ended = 0.0
        self._resting: Event | None = None

    def take(self) -> None:
        """Call before each piece of work; waits half a millisecond after ten in which there was no pause."""
        while self._resting is not None:
            self._resting.wait()
        now = time.monotonic()
        if now - self._ended > LULL_S:
            self._began = now
        elif now - self._began > LONGEST_RUSH_S:
            self._rest()

    def _rest(self) -> None:
        resting = self._resting = Event()
        try:
            gevent.sleep(PAUSE_S)  # a timer: the sockets are looked at before it fires
        finally:
            self._resting = None
            self._began = self._ended = time.monotonic()
            resting.set()

    def done(self) -> None:
        """Call after each piece of work."""
        self._ended = time.monotonic()
