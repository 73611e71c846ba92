"""Owns the way from the scripts' lines to the backend: takes them in, makes readers wait, reports how it goes.

Knows nothing of scripts, processes or HTTP.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import gevent
import msgspec
from gevent.event import Event

from orionagent.config import AgentConfig
from orionagent.logs.buffer import Buffer
from orionagent.logs.compression import Compression
from orionagent.logs.custody import DISK_RETRY_S
from orionagent.logs.disk import Disk
from orionagent.logs.drain import Drain, LogBackend, timestamp
from orionagent.logs.flow import HEALTHY_S, Budget, Pace, pace
from orionagent.logs.journal import Dropped
from orionagent.logs.lanes import Lane
from orionagent.logs.rejected import RejectedFile
from orionagent.logs.ring import Follower, Ring
from orionagent.paths import Paths
from orionagent.tasks import Task, TaskFailed, TaskGroup
from orionagent.wire import Alert, Batch, BufferReport, Extra

log = logging.getLogger(__name__)

OWN_SOURCE = "orion-agent"
DISK_ROUND_S = 0.5
"""Between looks at whether appended entries should go to the disk; only while some wait."""

DISK_PATIENCE_S = 10.0
PLACE_S = 5.0
REPORT_EVERY_S = 60.0


LinkState: TypeAlias = Literal["connected", "retrying", "paused", "idle", "not-configured"]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """How delivery goes. `since` is RFC 3339."""

    state: LinkState
    since: str
    lastError: str | None
    nextAttemptSeconds: float | None


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
        self._config = config
        self._token_for = token_for
        self._draw = draw
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
        self._lanes: dict[str | None, Lane] = {}
        self._lane_of_source: dict[str, Lane] = {}
        self._drain = Drain(
            self._buffer,
            backend,
            lane_of=self._lane_of,
            rejected=RejectedFile(paths.rejected),
            compression=Compression(config.apiUrl),
            on_outcome=self._outcome,
            draw=draw,
            now=now,
            monotonic=monotonic,
        )
        self._waiters: deque[Event] = deque()
        self._budget = budget or Budget()
        self._disk_wanted = Event()
        self._halt = Event()
        self._tending: Task | None = None
        self._place_due = 0.0
        self._reported_at = 0.0
        self._attempt = Event()
        self._ever_connected = False
        self._state: LinkState = "idle"
        self._since = now()

    def __repr__(self) -> str:
        return f"Shipper({self._buffer!r}, {self._state})"

    # Life

    def start(self) -> None:
        """Read the buffer back and begin to send. Blocks for the disk."""
        loaded = self._buffer.open()
        if loaded.lost or loaded.salvaged:
            self._say(
                f"the buffer file was damaged: {loaded.salvaged} entries are delivered marked as damaged, "
                f"{loaded.lost} could not be read",
                {"salvaged": loaded.salvaged, "lost": loaded.lost},
            )
        self._note_state()
        self._tasks.spawn("ship:drain", self._drain.run)
        self._tending = self._tasks.spawn("ship:disk", self._tend_disk)
        self._disk_wanted.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Deliver what is left as far as the backend takes it, for `timeout_s` at most; sync and close."""
        deadline = self._monotonic() + timeout_s
        if self._buffer.entries and len(self._tasks):
            self._drain.outage.wake()
            self._await_attempts(deadline)
        self._halt.set()
        self._disk_wanted.set()
        if self._tending is not None:
            self._tending.join(timeout=DISK_PATIENCE_S)
        stuck = self._tasks.stop()
        if stuck:
            log.error("cannot stop %s in time", ", ".join(stuck))
        self._wake_waiters()
        self._buffer.close()

    def reconfigure(self, config: AgentConfig) -> None:
        """Use new limits and tokens; everything that was given up or postponed is tried anew at once."""
        if config.apiUrl != self._config.apiUrl:
            self._drain.compression = Compression(config.apiUrl)
        self._config = config
        self._buffer.limit(config.bufferMaxEntries, config.bufferMaxBytes)
        self._lane_of_source.clear()
        for lane in self._lanes.values():
            lane.forget()
        self._drain.outage.force()
        self._note_state()
        self._drain.poke()
        self._wake_waiters()

    # Taking in

    def offer(self, batch: Batch) -> int:
        """Put a batch into the buffer; return its first sequence number.

        Blocks while the buffer is full and the backend takes data: as long as it takes while that is quick,
        5 s in any minute for one source while it is slow, not at all while it fails. Then the oldest
        entries go.
        """
        entries = len(batch.messages)
        room = not self._waiters and self._buffer.has_room(entries)
        if not room:
            room = self._wait_for_room(batch.source, entries)
        first = self._buffer.append(batch, evict=not room)
        self._drain.offer()
        if not self._disk_wanted.is_set():
            self._disk_wanted.set()
        return first

    def offer_alert(self, alert: Alert) -> int:
        """Put an alert into the buffer, in order with the logs; return its number. Never waits."""
        seq = self._buffer.append_alert(alert)
        self._drain.offer()
        self._disk_wanted.set()
        return seq

    def _wait_for_room(self, source: str, entries: int) -> bool:
        """Wait for room as the pace allows, first come first served; tell whether there is."""
        ticket = Event()
        self._waiters.append(ticket)
        started = now = self._monotonic()
        try:
            while True:
                if self._waiters[0] is ticket and self._buffer.has_room(entries):
                    return True
                patience = self._patience_s(source, started, now)
                if patience <= 0:
                    return False
                ticket.clear()
                ticket.wait(patience)
                now = self._monotonic()
        finally:
            self._waiters.remove(ticket)
            self._budget.spend(source, started, self._monotonic())
            self._wake_waiters()

    def _patience_s(self, source: str, started: float, now: float) -> float:
        """Return how long to wait before asking again; 0: no longer."""
        found = self._pace(now)
        if found == "failing":
            return 0.0
        if found == "slow":
            return self._budget.left_s(source, now, started)
        flight = self._drain.flight
        return HEALTHY_S if flight is None else max(flight[1] + HEALTHY_S - now, 0.0) + 0.001

    def _pace(self, now: float) -> Pace:
        """Return how fast the entries go that would have to make room."""
        flight = self._drain.flight
        oldest = self._buffer.oldest_source()
        lane = self._lane_of(oldest) if oldest is not None else flight[0] if flight is not None else None
        if lane is None:
            return "healthy"
        return pace(
            failing=lane.failing or self._drain.outage.failing,
            last_took_s=lane.took_s,
            under_way_s=now - flight[1] if flight is not None else 0.0,
        )

    def _wake_waiters(self) -> None:
        for ticket in self._waiters:
            ticket.set()

    # Lanes

    def _lane_of(self, source: str) -> Lane:
        lane = self._lane_of_source.get(source)
        if lane is None:
            token = self._token_for(source) or self._config.token
            lane = self._lanes.get(token)
            if lane is None:
                lane = self._lanes[token] = Lane(token, self._draw)
            self._lane_of_source[source] = lane
        return lane

    def _outcome(self, delivered: bool) -> None:
        """Hear of a request's end, from the drain's greenlet."""
        if delivered:
            self._ever_connected = True
            self._report_drops()
            if self._buffer.custody.needs_compaction:
                self._disk_wanted.set()
        elif any(lane.paused for lane in self._lane_of_source.values()):
            self._lane_of_source.clear()  # the token's file may hold another one by the next attempt
        self._attempt.set()
        self._attempt.clear()
        self._note_state()
        self._wake_waiters()

    def wake(self) -> None:
        """Try at once: a heartbeat has just succeeded. A time that the backend itself named is kept."""
        self._drain.outage.wake()
        for lane in self._lanes.values():
            lane.retry.wake()
        self._drain.poke()

    def flush_now(self, timeout_s: float = 30.0) -> Flushed:
        """Try at once whatever was postponed; block until all is sent, an attempt fails, or the time is up."""
        before = self._drain.sent
        self._drain.outage.force()
        for lane in self._lanes.values():
            lane.retry.force()
        self._drain.poke()
        self._await_attempts(self._monotonic() + timeout_s)
        return Flushed(sent=self._drain.sent - before, remaining=self._buffer.entries)

    def _await_attempts(self, deadline: float) -> None:
        """Wait until the buffer is empty or nothing more is due."""
        while self._buffer.entries and self._drain.flight_or_due():
            left = deadline - self._monotonic()
            if left <= 0 or not self._attempt.wait(left):
                return

    # Drops and the agent's own words

    def _report_drops(self) -> None:
        """Say what was given up once entries flow again: the buffer has room, or a minute has passed."""
        if not self._buffer.dropped.unreported:
            return
        now = self._monotonic()
        flowing = self._buffer.entries <= self._buffer.max_entries // 2
        if flowing or now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            self._buffer.report_drops(self._describe_drops)

    def _describe_drops(self, dropped: Dropped) -> Batch:
        when = f" from {dropped.since} to {dropped.until}" if dropped.since else ""
        return self._own_batch(
            f"{dropped.unreported} entries were dropped{when}: the buffer was full ({dropped.total} in all)",
            {
                "dropped": dropped.unreported,
                "droppedTotal": dropped.total,
                "from": dropped.since,
                "to": dropped.until,
            },
        )

    def _own_batch(self, message: str, metadata: Mapping[str, Any]) -> Batch:
        return Batch(
            source=OWN_SOURCE,
            stream="agent",
            timestamp=timestamp(self._now()),
            messages=(message,),
            levels="warn",
            extras={0: Extra(metadata=metadata)},
        )

    def _say(self, message: str, metadata: Mapping[str, Any]) -> None:
        self._buffer.append(self._own_batch(message, metadata))
        self._drain.offer()

    # The disk

    def _tend_disk(self) -> None:
        """Sync what waits while the backend does not take it; compact; retry a disk that refuses.

        Ends by itself once told to halt: killing it would leave its work running in the other thread.
        """
        custody = self._buffer.custody
        run = gevent.get_hub().threadpool.apply
        while True:
            self._disk_wanted.wait()
            if self._halt.wait(DISK_ROUND_S if custody.refused is None else DISK_RETRY_S):
                return
            now = self._monotonic()
            if now >= self._place_due:
                self._place_due = now + PLACE_S
                if not custody.is_in_place():
                    log.error("the buffer file was removed or replaced; writing it anew")
                    custody.compact(run)
            if custody.needs_compaction:
                custody.compact(run)
            if custody.unsynced and self._buffer.entries and self._pace(now) != "healthy":
                custody.sync(run)
            if custody.ready() and not (custody.unsynced and self._buffer.entries):
                self._disk_wanted.clear()

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
        custody = self._buffer.custody
        return BufferStatus(
            entries=self._buffer.entries,
            bytes=self._buffer.size_bytes,
            oldestAgeSeconds=self._oldest_age_s(),
            droppedTotal=self._buffer.dropped.total,
            rejectedTotal=self._buffer.rejected_total,
            memoryOnly=custody.refused is not None,
            diskError=str(custody.refused) if custody.refused is not None else None,
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
        self._note_state()
        due = self._drain.next_due_s()
        failing = self._state in ("retrying", "paused")
        return Link(
            state=self._state,
            since=timestamp(self._since),
            lastError=self._drain.last_error if failing else None,
            nextAttemptSeconds=round(max(due, 0.0), 1) if failing and due is not None else None,
        )

    def _note_state(self) -> None:
        used = {self._lane_of(source) for source in self._buffer.sources()}
        used.update(self._lane_of_source.values())
        lanes = [lane for lane in used if lane.token is not None]
        state: LinkState
        if self._config.token is None and not lanes:
            state = "not-configured"
        elif any(lane.paused for lane in lanes):
            state = "paused"
        elif self._drain.outage.failing or any(lane.failing for lane in lanes):
            state = "retrying"
        else:
            state = "connected" if self._ever_connected else "idle"
        if state != self._state:
            self._state, self._since = state, self._now()
            trouble = state in ("retrying", "paused")
            log.info("delivery is %s%s", state, f": {self._drain.last_error}" if trouble else "")

    def tail(self, source: str | None, lines: int) -> list[dict[str, Any]]:
        """Return the last entries of a source (None: of all) as plain dicts, delivered or not."""
        return self._ring.tail(source, lines)

    def follow(self, source: str | None) -> Follower:
        """Return an iterator over entries to come; it blocks. Close it in the end."""
        return self._ring.follow(source)
