"""Owns the way from the scripts' lines to the backend: puts its parts together, takes lines in, says how it goes.

Knows nothing of scripts, processes or HTTP.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from gevent.event import Event

from orionagent.config import AgentConfig
from orionagent.logs.buffer import Buffer
from orionagent.logs.compression import Compression
from orionagent.logs.disk import Disk
from orionagent.logs.drain import Drain, LogBackend
from orionagent.logs.flow import Budget
from orionagent.logs.gate import Gate
from orionagent.logs.lanes import Lanes
from orionagent.logs.link import Link, LinkWatch
from orionagent.logs.notices import Notices
from orionagent.logs.rejected import RejectedFile
from orionagent.logs.ring import Follower, Ring
from orionagent.logs.tender import Tender
from orionagent.paths import Paths
from orionagent.tasks import TaskFailed, TaskGroup
from orionagent.wire import Alert, Batch, BufferReport

log = logging.getLogger(__name__)


class BufferStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `orion status` shows of the buffer."""

    entries: int
    bytes: int
    oldestAgeSeconds: float | None
    droppedTotal: int
    rejectedTotal: int
    memoryOnly: bool
    diskError: str | None


class Flushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a forced attempt achieved."""

    sent: int
    remaining: int


class Shipper:
    """Takes batches in, keeps them in the buffer, and delivers them. Sole writer of the buffer and the ring.

    `token_for` returns a source's own token, None where the server's is to be used; it is asked again after
    a reload and while a token is refused. Greenlets: `ship:drain`, `ship:disk`.
    """

    def __init__(
        self,
        paths: Paths,
        config: AgentConfig,
        backend: LogBackend,
        *,
        boot_id: str,
        token_for: Callable[[str], str | None],
        on_failure: Callable[[TaskFailed], None] | None = None,
        disk: Disk | None = None,
        budget: Budget | None = None,
        draw: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api_url = config.apiUrl
        self._now = now
        self._monotonic = monotonic
        self._tasks = TaskGroup("shipper", on_failure)
        self._ring = Ring()
        self._buffer = Buffer(
            paths.buffer,
            boot_id=boot_id,
            max_entries=config.bufferMaxEntries,
            max_bytes=config.bufferMaxBytes,
            disk=disk,
            tap=self._ring.add,
            monotonic=monotonic,
        )
        self._lanes = Lanes(config.token, token_for, draw)
        self._drain = Drain(
            self._buffer,
            backend,
            lane_of=self._lanes.of,
            rejected=RejectedFile(paths.rejected),
            compression=Compression(config.apiUrl),
            on_outcome=self._outcome,
            draw=draw,
            now=now,
            monotonic=monotonic,
        )
        self._gate = Gate(self._buffer, self._drain, self._lanes, budget or Budget(), monotonic)
        self._notices = Notices(self._buffer, must_evict=self._gate.must_evict, now=now, monotonic=monotonic)
        self._watch = LinkWatch(self._buffer, self._drain, self._lanes, now)
        self._tender = Tender(
            self._buffer.custody,
            has_entries=lambda: self._buffer.entries > 0,
            at_risk=lambda now_s: self._gate.pace(now_s) != "healthy",
            monotonic=monotonic,
        )
        self._disk_wanted = self._tender.wanted
        self._attempt = Event()

    def __repr__(self) -> str:
        return f"Shipper({self._buffer!r}, {self._watch.state})"

    # Life

    def start(self) -> None:
        """Read the buffer back and begin to send. Blocks for the disk."""
        loaded = self._buffer.open()
        if loaded.lost or loaded.salvaged:
            self._notices.say(
                f"the buffer file was damaged: {loaded.salvaged} entries are delivered marked as damaged, "
                f"{loaded.lost} could not be read",
                {"salvaged": loaded.salvaged, "lost": loaded.lost},
            )
        self._watch.note()
        self._tasks.spawn("ship:drain", self._drain.run)
        self._tender.start(self._tasks)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Deliver what is left as far as the backend takes it, for `timeout_s` at most; sync and close."""
        deadline = self._monotonic() + timeout_s
        if self._buffer.entries and len(self._tasks):
            self._drain.outage.wake()
            self._await_attempts(deadline)
        self._tender.stop()
        stuck = self._tasks.stop()
        if stuck:
            log.error("cannot stop %s in time", ", ".join(stuck))
        self._gate.wake()
        self._buffer.close()

    def reconfigure(self, config: AgentConfig) -> None:
        """Use new limits and tokens; everything that was given up or postponed is tried anew at once."""
        if config.apiUrl != self._api_url:
            self._api_url = config.apiUrl
            self._drain.compression = Compression(config.apiUrl)
        self._buffer.limit(config.bufferMaxEntries, config.bufferMaxBytes)
        self._lanes.start_anew(config.token)
        self._drain.outage.force()
        self._watch.note()
        self._drain.poke()
        self._gate.wake()

    # Taking in

    def offer(self, batch: Batch) -> int:
        """Put a batch into the buffer; return its first sequence number.

        Blocks while the buffer is full and the backend takes data: as long as it takes while that is quick,
        5 s in any minute for one source while it is slow, not at all while it fails. Then the oldest
        entries go.
        """
        room = self._gate.admit(batch.source, len(batch.messages))
        first = self._buffer.append(batch, evict=not room)
        self._drain.offer()
        if not self._disk_wanted.is_set():
            self._disk_wanted.set()
        return first

    def offer_alert(self, alert: Alert) -> int:
        """Put an alert into the buffer, in order with the logs; return its number. Never waits."""
        seq = self._buffer.append_alert(alert, evict=self._gate.must_evict())
        self._drain.offer()
        self._disk_wanted.set()
        return seq

    # Sending

    def _outcome(self, delivered: bool) -> None:
        """Hear of a request's end, from the drain's greenlet."""
        if delivered:
            self._notices.report_drops()
            if self._buffer.custody.needs_compaction:
                self._disk_wanted.set()
        elif any(lane.paused for lane in self._lanes.in_use()):
            self._lanes.ask_again()  # the token's file may hold another one by the next attempt
        self._attempt.set()
        self._attempt.clear()
        self._watch.note(delivered=delivered)
        self._gate.wake()

    def wake(self) -> None:
        """Try at once: a heartbeat has just succeeded. A time that the backend itself named is kept."""
        self._drain.outage.wake()
        for lane in self._lanes:
            lane.retry.wake()
        self._drain.poke()

    def flush_now(self, timeout_s: float = 30.0) -> Flushed:
        """Try at once whatever was postponed; block until all is sent, an attempt fails, or the time is up."""
        before = self._drain.sent
        self._drain.outage.force()
        for lane in self._lanes:
            lane.retry.force()
        self._drain.poke()
        self._await_attempts(self._monotonic() + timeout_s)
        return Flushed(sent=self._drain.sent - before, remaining=self._buffer.entries)

    def _await_attempts(self, deadline_s: float) -> None:
        """Wait until the buffer is empty or nothing more is due."""
        while self._buffer.entries and self._drain.flight_or_due():
            left = deadline_s - self._monotonic()
            if left <= 0 or not self._attempt.wait(left):
                return

    # How it goes

    @property
    def disk_at_rest(self) -> bool:
        """Tell whether nothing is due for the disk, so that nothing ticks for its sake."""
        return not self._disk_wanted.is_set()

    @property
    def offsets(self) -> Mapping[str, int]:
        """Return the byte offset behind the last entry in the buffer of each pipe; the mapping is kept current."""
        return self._buffer.offsets

    def report(self) -> BufferReport:
        """Return how full the buffer is, for the heartbeat."""
        return BufferReport(
            entries=self._buffer.entries,
            bytes=self._buffer.size_bytes,
            oldestAgeSeconds=self._oldest_age_s(),
            droppedTotal=self._buffer.dropped.total,
        )

    def buffer_status(self) -> BufferStatus:
        """Return how full the buffer is and what became of what left it otherwise than by delivery."""
        refused = self._buffer.custody.refused
        return BufferStatus(
            entries=self._buffer.entries,
            bytes=self._buffer.size_bytes,
            oldestAgeSeconds=self._oldest_age_s(),
            droppedTotal=self._buffer.dropped.total,
            rejectedTotal=self._buffer.rejected_total,
            memoryOnly=refused is not None,
            diskError=str(refused) if refused is not None else None,
        )

    def _oldest_age_s(self) -> float | None:
        oldest = self._buffer.oldest_at()
        if oldest is None:
            return None
        try:
            return round(max(self._now() - datetime.fromisoformat(oldest).timestamp(), 0.0), 3)
        except ValueError:
            return None

    def link(self) -> Link:
        """Return how delivery goes and when the next attempt is due."""
        return self._watch.report()

    def tail(self, source: str | None, lines: int) -> list[dict[str, Any]]:
        """Return the last entries of a source (None: of all) as plain dicts, delivered or not."""
        return self._ring.tail(source, lines)

    def follow(self, source: str | None) -> Follower:
        """Return an iterator over entries to come; it blocks. Close it in the end."""
        return self._ring.follow(source)
