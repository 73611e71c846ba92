"""Owns the state of the link to the backend as people see it: connected, retrying, paused, idle, not configured.

Knows nothing of how delivery works: it reads what the lanes and the drain have come to.
"""

import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from orionagent.logs.buffer import Buffer
from orionagent.logs.drain import Drain, timestamp
from orionagent.logs.lanes import Lanes

log = logging.getLogger(__name__)

LinkState: TypeAlias = Literal["connected", "retrying", "paused", "idle", "not-configured"]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery goes. `since` is RFC 3339."""

    state: LinkState
    since: str
    lastError: str | None
    nextAttemptSeconds: float | None


class LinkWatch:
    """Notes when the state changes, and logs it. Sole writer of the state. `now` is the wall clock."""

    def __init__(self, buffer: Buffer, drain: Drain, lanes: Lanes, now: Callable[[], float]) -> None:
        self._buffer = buffer
        self._drain = drain
        self._lanes = lanes
        self._now = now
        self._since_s = now()
        self._ever_connected = False
        self.state: LinkState = "idle"

    def report(self) -> Link:
        """Return how delivery goes and when the next attempt is due."""
        self.note()
        due_s = self._drain.next_due_s()
        failing = self.state in ("retrying", "paused")
        return Link(
            state=self.state,
            since=timestamp(self._since_s),
            lastError=self._drain.last_error if failing else None,
            nextAttemptSeconds=round(max(due_s, 0.0), 1) if failing and due_s is not None else None,
        )

    def note(self, *, delivered: bool = False) -> None:
        """Look at how it stands; `delivered`: a request has just been taken."""
        self._ever_connected = self._ever_connected or delivered
        state = self._judge()
        if state != self.state:
            self.state, self._since_s = state, self._now()
            trouble = state in ("retrying", "paused")
            log.info("delivery is %s%s", state, f": {self._drain.last_error}" if trouble else "")

    def _judge(self) -> LinkState:
        used = {self._lanes.of(source) for source in self._buffer.sources()}
        used.update(self._lanes.in_use())
        lanes = [lane for lane in used if lane.token is not None]
        if self._lanes.server_token is None and not lanes:
            return "not-configured"
        if any(lane.paused for lane in lanes):
            return "paused"
        if self._drain.outage.failing or any(lane.failing for lane in lanes):
            return "retrying"
        return "connected" if self._ever_connected else "idle"
