"""Owns what goes out when: picks a lane, takes its oldest entries, sends them, and judges the outcome.

Knows nothing of readers, followers or where the journal lies.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import gevent
import msgspec
from gevent.event import Event

from orionagent.errors import BackendError, Permanent, Refused, Retryable, TooLarge, Unsupported
from orionagent.logs.buffer import Buffer
from orionagent.logs.claims import Claim
from orionagent.logs.compression import Compression, compress
from orionagent.logs.encode import alert_as_entry, single_bodies
from orionagent.logs.lanes import Lane, Retry
from orionagent.logs.rejected import RejectedFile
from orionagent.wire import Alert

log = logging.getLogger(__name__)

PAUSE_S = 0.1
"""Between the starts of small requests: half of a line's latency budget, and at most ten requests a second."""

PLENTY_ENTRIES = 2000
PLENTY_BYTES = 512 << 10
SINGLES = 100


class LogBackend(Protocol):
    """What the drain needs of the backend; every call raises only BackendError's kinds."""

    def send_logs(
        self, body: bytes, *, token: str | None, instance: str, first_seq: int, last_seq: int, gzip: bool
    ) -> None:
        """POST entry lines."""

    def send_log(self, body: bytes, *, token: str | None, instance: str, seq: int) -> None:
        """POST one entry."""

    def send_alert(self, body: bytes, *, token: str | None, alert_id: str) -> None:
        """POST one alert."""


def timestamp(now_s: float) -> str:
    """Return a Unix time as RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Drain:
    """Sends what the buffer holds, one request at a time. Sole writer of the lanes and of acknowledgements.

    `lane_of` says under which lane a source's entries go; `on_outcome` hears of the end of every request. A
    failure that concerns everybody (no connection, 5xx) holds all lanes, any other only its own.
    """

    def __init__(
        self,
        buffer: Buffer,
        backend: LogBackend,
        *,
        lane_of: Callable[[str], Lane],
        rejected: RejectedFile,
        compression: Compression,
        on_outcome: Callable[[bool], None],
        draw: Callable[[], float],
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buffer = buffer
        self._backend = backend
        self._lane_of = lane_of
        self._rejected = rejected
        self.compression = compression
        self._on_outcome = on_outcome
        self._now = now
        self._monotonic = monotonic
        self._wanted = Event()
        self._pausing: Lane | None = None
        self._sent_at = 0.0
        self.outage = Retry(draw)
        self.flight: tuple[Lane, float] | None = None
        self.sent = 0
        self.last_error: str | None = None

    def offer(self) -> None:
        """Hear that the buffer got more; cheap, called for every batch."""
        if self._pausing is None or self._plenty(self._pausing):
            self._wanted.set()

    def poke(self) -> None:
        """Look again at what is due."""
        self._wanted.set()

    def next_due_s(self) -> float | None:
        """Return in how many seconds the next attempt is due, None when nothing waits for one."""
        _, wait_s = self._choose()
        return wait_s

    def flight_or_due(self) -> bool:
        """Tell whether a request is under way or about to be."""
        return self.flight is not None or self._choose()[0] is not None

    def run(self) -> None:
        """Send until killed."""
        while True:
            self._wanted.clear()
            lane, wait_s = self._choose()
            if lane is None:
                self._wanted.wait(wait_s)
            elif not self._pause(lane):
                self._ship(lane)

    def _choose(self) -> tuple[Lane | None, float | None]:
        """Return the due lane with the oldest entry, else how long until one is due (None: none will be)."""
        now = self._monotonic()
        due: dict[Lane, list[str]] = {}
        wait: float | None = None
        for source in self._buffer.sources():
            lane = self._lane_of(source)
            if lane.token is None:
                continue
            left = max(lane.retry.due_s, self.outage.due_s) - now
            if left <= 0:
                due.setdefault(lane, []).append(source)
            elif wait is None or left < wait:
                wait = left
        if not due:
            return None, wait
        if len(due) == 1:
            return next(iter(due)), None
        return min(due, key=lambda lane: self._buffer.oldest_order(due[lane])), None

    def _plenty(self, lane: Lane) -> bool:
        """Tell whether enough waits for a request that is worth its cost, or somebody may wait for room."""
        buffer = self._buffer
        entries, size = lane.room(self._monotonic())
        return buffer.entries >= min(PLENTY_ENTRIES, entries, buffer.limits.max_entries // 2) or (
            buffer.size_bytes >= min(PLENTY_BYTES, size, buffer.limits.max_bytes // 2)
        )

    def _pause(self, lane: Lane) -> bool:
        """Let entries gather after the previous request; tell whether to look around again."""
        left = self._sent_at + PAUSE_S - self._monotonic()
        if left <= 0 or self._plenty(lane) or self.outage.failing:
            return False
        self._pausing = lane
        try:
            return bool(self._wanted.wait(left)) and not self._plenty(lane)
        finally:
            self._pausing = None

    # One request

    def _ship(self, lane: Lane) -> None:
        started = self._sent_at = self._monotonic()
        sources = [source for source in self._buffer.sources() if self._lane_of(source) is lane]
        entries, size = lane.room(started)
        claim = self._buffer.claim(sources, entries if lane.takes_batches(started) else SINGLES, size)
        if claim is None:
            return
        self.flight = (lane, started)
        failed = False
        try:
            self._deliver(lane, claim)
        except BackendError as error:
            failed = True
            held = self._buffer.claimed
            assert held is not None
            self._judge(lane, held, error)
        finally:
            self.flight = None
            if self._buffer.claimed is not None:
                self._buffer.release(self._buffer.claimed)
        if failed:
            self._sent_at = 0.0  # halving goes on at once, everything else has its own wait
            self._on_outcome(False)

    def _deliver(self, lane: Lane, claim: Claim) -> None:
        """Send a claim and acknowledge what was taken."""
        pieces = self._buffer.read(claim)
        if pieces is None:
            log.error("cannot read some of the buffered entries back; they are counted as dropped")
            self._buffer.lose(claim)
            return
        body = b"".join(pieces)
        started = self._monotonic()
        if claim.alert:
            self._send_alert(lane, claim, body, started)
            self._sent_at = 0.0  # each alert is a request of its own: pauses would make a queue of a bad moment
        elif lane.takes_batches(started):
            self._send_batch(lane, claim, body)
        else:
            self._send_singles(lane, claim, body)
            return
        self._buffer.ack(claim)
        self._delivered(lane, claim.entries, self._monotonic() - started)

    def _delivered(self, lane: Lane, entries: int, took_s: float) -> None:
        lane.succeeded(entries, took_s)
        self.outage.succeeded()
        self.sent += entries
        self._on_outcome(True)

    def _send_batch(self, lane: Lane, claim: Claim, body: bytes) -> None:
        packed = self.compression.pays(len(body))
        data, packing_s = compress(body, gevent.get_hub().threadpool.apply) if packed else (body, 0.0)
        started = self._monotonic()
        try:
            self._post(lane, claim, data, packed=packed)
        except (Permanent, Unsupported):
            if not packed:
                raise
            # It may be the encoding that it does not know.
            self._post(lane, claim, body, packed=False)
            self.compression.forbid()
            return
        self.compression.note(len(body), packing_s + self._monotonic() - started, packed=packed)

    def _post(self, lane: Lane, claim: Claim, data: bytes, *, packed: bool) -> None:
        self._backend.send_logs(
            data,
            token=lane.token,
            instance=claim.instance,
            first_seq=claim.first,
            last_seq=claim.last,
            gzip=packed,
        )

    def _send_singles(self, lane: Lane, claim: Claim, body: bytes) -> None:
        rest: Claim | None = claim
        for (seq, single), line in zip(single_bodies(body), body.splitlines(keepends=True), strict=True):
            started = self._monotonic()
            self._backend.send_log(single, token=lane.token, instance=claim.instance, seq=seq)
            assert rest is not None
            rest = self._buffer.ack_first(rest, 1, len(line))
            self.flight = (lane, self._monotonic())
            self._delivered(lane, 1, self._monotonic() - started)

    def _send_alert(self, lane: Lane, claim: Claim, body: bytes, now_s: float) -> None:
        alert = msgspec.json.decode(body, type=Alert)
        if lane.takes_alerts(now_s):
            try:
                self._backend.send_alert(body.rstrip(b"\n"), token=lane.token, alert_id=alert.id)
            except Unsupported:
                lane.no_alerts(now_s)
            else:
                return
        line = alert_as_entry(alert, claim.first)
        if lane.takes_batches(now_s):
            try:
                self._post(lane, claim, line, packed=False)
            except Unsupported:
                lane.only_singles(now_s)
            else:
                return
        ((seq, single),) = single_bodies(line)
        self._backend.send_log(single, token=lane.token, instance=claim.instance, seq=seq)

    # What went wrong

    def _judge(self, lane: Lane, claim: Claim, error: BackendError) -> None:
        """Decide what follows from an error."""
        now = self._monotonic()
        self.last_error = error.message
        status = error.status or 0
        if isinstance(error, Refused):
            lane.refused(error, now)
        elif isinstance(error, Unsupported) and not claim.alert and lane.takes_batches(now):
            log.info("the backend takes no batches of entries: %s; sending them one by one", error.message)
            lane.only_singles(now)
        elif isinstance(error, TooLarge):
            if not lane.too_large(claim.entries, claim.bytes, now):
                self._set_aside(lane, claim, error)
        elif isinstance(error, Permanent) and not 300 <= status < 400:
            if not lane.spoilt(claim.entries if lane.takes_batches(now) else 1):
                self._set_aside(lane, claim, error)
        elif isinstance(error, Retryable) and status not in (408, 429):
            self.outage.failed(error, now)
        else:
            lane.retry.failed(error, now)

    def _set_aside(self, lane: Lane, claim: Claim, error: BackendError) -> None:
        """Put the claim's first entry into `rejected.jsonl`."""
        lines = b"".join(self._buffer.read(claim) or ()).splitlines(keepends=True)
        if lines:
            self._rejected.add(lines[0], instance=claim.instance, at=timestamp(self._now()), reason=error.message)
        log.warning("an entry of %s is set aside: %s", claim.extents[0].source, error.message)
        self._buffer.reject_first(claim, len(lines[0]) if lines else claim.bytes)
        lane.rejected(error, self._monotonic())
