"""Owns what the agent itself has to say among the entries: what was given up, what was damaged.

Knows nothing of delivery: it writes into the buffer like any source, as `orion-agent`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from orionagent.logs.buffer import Buffer
from orionagent.logs.drain import timestamp
from orionagent.logs.journal import Dropped
from orionagent.wire import Batch, Extra

OWN_SOURCE = "orion-agent"
REPORT_EVERY_S = 60.0


class Notices:
    """Writes `warn` entries of `orion-agent`. `now` is the wall clock; `must_evict` tells what a full buffer means."""

    def __init__(
        self,
        buffer: Buffer,
        *,
        must_evict: Callable[[], bool],
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._buffer = buffer
        self._must_evict = must_evict
        self._now = now
        self._monotonic = monotonic
        self._reported_at_s = 0.0

    def say(self, message: str, metadata: Mapping[str, Any]) -> None:
        """Append an entry."""
        self._buffer.append(self._batch(message, metadata), evict=self._must_evict())

    def report_drops(self) -> None:
        """Say what was given up, once entries flow again: the buffer has room, or a minute has passed."""
        if not self._buffer.dropped.unreported:
            return
        now = self._monotonic()
        flowing = self._buffer.entries <= self._buffer.limits.max_entries // 2
        if flowing or now - self._reported_at_s >= REPORT_EVERY_S:
            self._reported_at_s = now
            self._buffer.report_drops(self._describe, evict=self._must_evict())

    def _describe(self, dropped: Dropped) -> Batch:
        when = f" from {dropped.since} to {dropped.until}" if dropped.since else ""
        return self._batch(
            f"{dropped.unreported} entries were dropped{when}: the buffer was full ({dropped.total} in all)",
            {
                "dropped": dropped.unreported,
                "droppedTotal": dropped.total,
                "from": dropped.since,
                "to": dropped.until,
            },
        )

    def _batch(self, message: str, metadata: Mapping[str, Any]) -> Batch:
        return Batch(
            source=OWN_SOURCE,
            stream="agent",
            timestamp=timestamp(self._now()),
            messages=(message,),
            levels="warn",
            extras={0: Extra(metadata=metadata)},
        )
