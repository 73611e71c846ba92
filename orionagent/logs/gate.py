"""Owns who waits for room in the buffer, in what order, and when they have waited long enough.

Knows nothing of how entries are written or sent: it asks the buffer for room and the drain how it goes.
"""

from collections import deque
from collections.abc import Callable

from gevent.event import Event

from orionagent.logs.buffer import Buffer
from orionagent.logs.drain import Drain
from orionagent.logs.flow import HEALTHY_S, Budget, Pace, pace
from orionagent.logs.lanes import Lanes


class Gate:
    """Lets batches in, first come first served. Sole writer of the queue of those who wait and of their budgets."""

    def __init__(
        self, buffer: Buffer, drain: Drain, lanes: Lanes, budget: Budget, monotonic: Callable[[], float]
    ) -> None:
        self._buffer = buffer
        self._drain = drain
        self._lanes = lanes
        self._budget = budget
        self._monotonic = monotonic
        self._tickets: deque[Event] = deque()

    def __repr__(self) -> str:
        return f"Gate(waiting={len(self._tickets)})"

    def admit(self, source: str, entries: int) -> bool:
        """Tell whether so many entries have room, waiting for it as the pace allows; False: the oldest must go."""
        if not self._tickets and self._buffer.has_room(entries):
            return True
        return self._wait(source, entries)

    def must_evict(self) -> bool:
        """Tell whether room for what never waits is made by dropping; not while a quick backend makes it anyway."""
        return self.pace(self._monotonic()) != "healthy"

    def wake(self) -> None:
        """Have everybody look again: there is room, or the pace has changed."""
        for ticket in self._tickets:
            ticket.set()

    def pace(self, now_s: float) -> Pace:
        """Return how fast the entries go that would have to make room."""
        flight = self._drain.flight
        oldest = self._buffer.oldest_source()
        lane = self._lanes.of(oldest) if oldest is not None else flight[0] if flight is not None else None
        if lane is None:
            return "healthy"
        return pace(
            failing=lane.failing or self._drain.outage.failing,
            last_took_s=lane.took_s,
            under_way_s=now_s - flight[1] if flight is not None else 0.0,
        )

    def _wait(self, source: str, entries: int) -> bool:
        ticket = Event()
        self._tickets.append(ticket)
        started = now = self._monotonic()
        try:
            while True:
                if self._tickets[0] is ticket and self._buffer.has_room(entries):
                    return True
                patience = self._patience_s(source, started, now)
                if patience <= 0:
                    return False
                ticket.clear()
                ticket.wait(patience)
                now = self._monotonic()
        finally:
            self._tickets.remove(ticket)
            self._budget.spend(source, started, self._monotonic())
            self.wake()

    def _patience_s(self, source: str, started_s: float, now_s: float) -> float:
        """Return how long to wait before asking again; 0: no longer."""
        found = self.pace(now_s)
        if found == "failing":
            return 0.0
        if found == "slow":
            return self._budget.left_s(source, now_s, started_s)
        flight = self._drain.flight
        return HEALTHY_S if flight is None else max(flight[1] + HEALTHY_S - now_s, 0.0) + 0.001
