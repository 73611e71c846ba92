"""Owns the timed send of the machine's state, and hands on what the answer brings back.

Knows nothing of logs, of how a script is run, or of how a request is made.
"""

import datetime
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import gevent
import msgspec
from gevent.event import Event

from orionagent.errors import BackendError, Retryable
from orionagent.metrics.commands import CommandBackend, RemoteCommands
from orionagent.metrics.sampler import Sampler
from orionagent.tasks import TaskFailed, TaskGroup
from orionagent.wire import BufferReport, HeartbeatAnswer, HostSample, RemoteCommand, ScriptReport
from orionagent.wire import Heartbeat as Body

log = logging.getLogger(__name__)

MIN_SERVER_INTERVAL_MS = 5_000
MAX_SERVER_INTERVAL_MS = 600_000
SHARE_OF_INTERVAL = 0.9  # a request that takes longer is given up, so that the next one keeps its slot
STOP_TIMEOUT_S = 5.0


class HeartbeatBackend(CommandBackend, Protocol):
    """What a heartbeat needs of the backend; blocks and raises BackendError."""

    def send_heartbeat(self, body: bytes, /) -> HeartbeatAnswer:
        """Post one heartbeat."""


class Heartbeat:
    """Sends one heartbeat per slot of a fixed grid on the monotonic clock.

    A slot that passes while a request is still under way is left out: an old heartbeat is worthless. Nothing
    is queued and nothing waits for the log shipper. Sole writer of the last sample and of the link's state as
    heartbeats see it (`last_error`, `last_success_s`). `backend` None: not set up yet, nothing is sent.
    """

    def __init__(
        self,
        sampler: Sampler,
        backend: HeartbeatBackend | None,
        *,
        hostname: str,
        boot_id: str,
        version: str,
        interval_ms: int,
        scripts: Callable[[], Sequence[ScriptReport]],
        buffer: Callable[[], BufferReport | None],
        on_command: Callable[[RemoteCommand], bool],
        on_success: Callable[[], None],
        remote_commands: bool = True,
        on_failure: Callable[[TaskFailed], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sampler = sampler
        self._backend = backend
        self._hostname = hostname
        self._boot_id = boot_id
        self._version = version
        self._interval_s = interval_ms / 1000
        self._scripts = scripts
        self._buffer = buffer
        self._on_success = on_success
        self._remote_commands = remote_commands
        self._clock = clock
        self._wall_clock = wall_clock
        self._tasks = TaskGroup("heartbeat", on_failure)
        self._commands = RemoteCommands(on_command, self._tasks, clock=clock)
        self._changed = Event()
        self._stopped = False
        self._sample: HostSample | None = None
        self._last_error: str | None = None
        self._last_success_s: float | None = None

    def __repr__(self) -> str:
        return f"Heartbeat(every {self._interval_s:g} s, last error {self._last_error!r})"

    @property
    def last_sample(self) -> HostSample | None:
        """The sample of the last heartbeat, None before the first."""
        return self._sample

    @property
    def last_error(self) -> str | None:
        """Why the last heartbeat failed, None when it did not."""
        return self._last_error

    @property
    def last_success_s(self) -> float | None:
        """When, on the monotonic clock, a heartbeat last arrived."""
        return self._last_success_s

    @property
    def interval_s(self) -> float:
        """The interval in force: the configuration's, or the one the backend asked for."""
        return self._interval_s

    def sample_now(self) -> HostSample:
        """Return the machine's present state without disturbing the heartbeat. Blocks like `Sampler.look`."""
        return self._sampler.look()

    def start(self) -> None:
        """Send the first heartbeat now and the others on the grid that begins here; return at once."""
        self._stopped = False
        self._tasks.spawn("heartbeat", self._run)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the grid and send the last heartbeat, marked `stopping`. Blocks at most about `timeout_s`."""
        if self._stopped:
            return
        self._stopped = True
        self._tasks.stop(timeout_s)
        self._beat(timeout_s=timeout_s, stopping=True)

    def abandon(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the grid without a last word: the agent is about to be replaced and goes on under the same pid."""
        self._stopped = True
        self._tasks.stop(timeout_s)

    def reconfigure(
        self,
        *,
        backend: HeartbeatBackend | None,
        hostname: str,
        interval_ms: int,
        remote_commands: bool,
        other_backend: bool = False,
    ) -> None:
        """Take up a changed configuration: the next heartbeat leaves at once and begins a new grid.

        `other_backend`: what `backend` talks to has changed, so that its commands are other ones.
        """
        if other_backend:
            self._commands.forget()
        self._backend = backend
        self._hostname = hostname
        self._interval_s = interval_ms / 1000
        self._remote_commands = remote_commands
        self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.clear()
            start_s, interval_s = self._clock(), self._interval_s
            due_s = start_s
            while not self._changed.is_set():
                self._beat(timeout_s=interval_s * SHARE_OF_INTERVAL)
                if interval_s != self._interval_s:  # the backend's wish: a new grid from this slot on
                    start_s, interval_s = due_s, self._interval_s
                due_s = next_slot_s(start_s, interval_s, self._clock())
                self._sleep_until(due_s)

    def _sleep_until(self, due_s: float) -> None:
        # A timer of the event loop may fire a little early by our clock.
        while not self._changed.is_set() and (left_s := due_s - self._clock()) > 0:
            self._changed.wait(left_s)

    def _beat(self, *, timeout_s: float, stopping: bool = False) -> None:
        backend = self._backend
        self._sample = self._sampler.sample()
        if backend is None:
            return
        body = self._encode(self._sample, stopping=stopping)
        try:
            late = Retryable(f"cannot send the heartbeat: no answer within {timeout_s:.3g} s")
            with gevent.Timeout(timeout_s, late):
                answer = backend.send_heartbeat(body)
        except BackendError as error:
            if self._last_error is None:
                log.warning("heartbeats do not arrive: %s", error)
            self._last_error = error.message
            return
        if self._last_error is not None:
            log.info("heartbeats arrive again")
        self._last_error = None
        self._last_success_s = self._clock()
        if not stopping:
            if not self._changed.is_set():  # else the answer may be another backend's; the next beat asks anew
                self._take(backend, answer)
            self._on_success()

    def _take(self, backend: HeartbeatBackend, answer: HeartbeatAnswer) -> None:
        if answer.heartbeatInterval is not None:
            wanted_ms = min(max(answer.heartbeatInterval, MIN_SERVER_INTERVAL_MS), MAX_SERVER_INTERVAL_MS)
            if wanted_ms / 1000 != self._interval_s:
                log.info("the backend asks for a heartbeat every %g s", wanted_ms / 1000)
                self._interval_s = wanted_ms / 1000
        if self._remote_commands:
            self._commands.take(backend, self._hostname, answer.commands)

    def _encode(self, sample: HostSample, *, stopping: bool) -> bytes:
        now = datetime.datetime.fromtimestamp(self._wall_clock(), datetime.UTC)
        body = Body(
            hostname=self._hostname,
            agentVersion=self._version,
            bootId=self._boot_id,
            timestamp=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            uptimeSeconds=sample.uptimeSeconds,
            cpu=sample.cpu,
            memory=sample.memory,
            disk=sample.disk,
            network=sample.network,
            scripts=self._scripts(),
            buffer=self._buffer(),
            scope=sample.scope,
            stopping=stopping,
        )
        return msgspec.json.encode(body)


def next_slot_s(start_s: float, interval_s: float, now_s: float) -> float:
    """Return the first slot of the grid `start_s + n * interval_s` that lies after `now_s`."""
    slot = math.floor((now_s - start_s) / interval_s) + 1
    due_s = start_s + slot * interval_s
    return due_s if due_s > now_s else due_s + interval_s  # floating point may land on `now_s` itself
