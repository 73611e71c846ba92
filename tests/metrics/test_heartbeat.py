"""The grid, the last word, and what an answer brings back."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue
from hypothesis import given
from hypothesis import strategies as st

from orionagent.errors import BackendError, OrionError, Refused, Retryable, Unsupported
from orionagent.metrics.heartbeat import (
    MAX_SERVER_INTERVAL_MS,
    MIN_SERVER_INTERVAL_MS,
    Heartbeat,
    next_slot_s,
)
from orionagent.metrics.sampler import Sampler
from orionagent.wire import BufferReport, HeartbeatAnswer, RemoteCommand, ScriptReport

DEADLINE_S = 10.0


class ScriptedBackend:
    """The other side of the protocol: hands every call to the test and answers as told."""

    def __init__(self) -> None:
        self.bodies: Queue[dict[str, Any]] = Queue()
        self.acks: Queue[tuple[int, bool]] = Queue()
        self.answer: HeartbeatAnswer | BackendError = HeartbeatAnswer(commands=())
        self.waiting: Sequence[RemoteCommand] | BackendError = ()
        self.ack_error: BackendError | None = None
        self.fetches = 0
        self.hold: Event | None = None

    def send_heartbeat(self, body: bytes, /) -> HeartbeatAnswer:
        self.bodies.put(json.loads(body))
        if self.hold is not None:
            self.hold.wait()
        if isinstance(self.answer, BackendError):
            raise self.answer
        return self.answer

    def fetch_commands(self, hostname: str, /) -> Sequence[RemoteCommand]:
        assert hostname == "web-1"
        self.fetches += 1
        if isinstance(self.waiting, BackendError):
            raise self.waiting
        return self.waiting

    def ack_command(self, command_id: int, ok: bool, /) -> None:
        self.acks.put((command_id, ok))
        if self.ack_error is not None:
            raise self.ack_error

    def next_body(self) -> dict[str, Any]:
        return self.bodies.get(timeout=DEADLINE_S)


class Rig:
    """A heartbeat between a scripted backend and recorded callbacks."""

    def __init__(self) -> None:
        self.backend = ScriptedBackend()
        self.successes: Queue[bool] = Queue()
        self.commands: list[RemoteCommand] = []
        self.outcome: bool | OrionError = True
        self.busy: Event | None = None
        self.failures: list[BaseException] = []
        self.heartbeat = self.build(interval_ms=20)

    def build(self, interval_ms: int, *, remote_commands: bool = True) -> Heartbeat:
        return Heartbeat(
            Sampler(),
            self.backend,
            hostname="web-1",
            boot_id="b-1",
            version="1.2.3",
            interval_ms=interval_ms,
            scripts=lambda: [ScriptReport(name="api", source="api", state="running", pid=7)],
            buffer=lambda: BufferReport(entries=1, bytes=2, oldestAgeSeconds=None, droppedTotal=3),
            on_command=self.do,
            on_success=lambda: self.successes.put(True),
            remote_commands=remote_commands,
            on_failure=self.failures.append,
            wall_clock=lambda: 1_700_000_000.25,
        )

    def do(self, command: RemoteCommand) -> bool:
        self.commands.append(command)
        if self.busy is not None:
            self.busy.wait()
        if isinstance(self.outcome, OrionError):
            raise self.outcome
        return self.outcome


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.heartbeat.stop()
    assert made.failures == []


def test_the_first_heartbeat_leaves_at_start_with_everything_in_it(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.heartbeat.start()
    body = rig.backend.next_body()
    assert body["hostname"] == "web-1"
    assert body["agentVersion"] == "1.2.3"
    assert body["bootId"] == "b-1"
    assert body["timestamp"] == "2023-11-14T22:13:20.250Z"
    assert body["scripts"] == [{"name": "api", "source": "api", "state": "running", "pid": 7}]
    assert body["buffer"] == {"entries": 1, "bytes": 2, "oldestAgeSeconds": None, "droppedTotal": 3}
    assert body["memory"]["totalMb"] > 0
    assert "stopping" not in body
    assert rig.successes.get(timeout=DEADLINE_S)
    assert rig.heartbeat.last_sample is not None


def test_the_last_heartbeat_says_that_it_is_the_last(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.heartbeat.start()
    rig.backend.next_body()
    rig.heartbeat.stop()
    assert rig.backend.next_body()["stopping"] is True
    rig.heartbeat.stop()
    assert rig.backend.bodies.empty()


def test_an_agent_that_is_replaced_does_not_say_that_it_stops(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.heartbeat.start()
    rig.backend.next_body()
    rig.heartbeat.abandon()
    rig.heartbeat.stop()
    assert rig.backend.bodies.empty()


def test_a_backend_that_hangs_does_not_hold_up_the_stop(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.heartbeat.start()
    rig.backend.next_body()
    rig.backend.hold = Event()
    with gevent.Timeout(DEADLINE_S):
        rig.heartbeat.stop(timeout_s=0.1)
    assert rig.heartbeat.last_error is not None


def test_heartbeats_follow_each_other_and_wake_the_shipper_every_time(rig: Rig) -> None:
    rig.heartbeat.start()
    for _ in range(4):
        rig.backend.next_body()
        rig.successes.get(timeout=DEADLINE_S)


def test_a_request_without_an_answer_costs_its_own_slot_only(rig: Rig) -> None:
    rig.backend.hold = Event()
    rig.heartbeat.start()
    for _ in range(3):
        rig.backend.next_body()
    assert rig.successes.empty()
    rig.backend.hold.set()
    rig.successes.get(timeout=DEADLINE_S)
    assert rig.heartbeat.last_error is None


@pytest.mark.parametrize("error", [Retryable("down"), Refused("token"), Unsupported("old")])
def test_a_failed_heartbeat_is_told_and_the_next_one_goes_out(rig: Rig, error: BackendError) -> None:
    rig.backend.answer = error
    rig.heartbeat.start()
    rig.backend.next_body()
    rig.backend.next_body()
    told = rig.heartbeat.last_error
    assert told == error.message
    assert rig.successes.empty()
    rig.backend.answer = HeartbeatAnswer(commands=())
    rig.successes.get(timeout=DEADLINE_S)
    assert rig.heartbeat.last_error is None
    assert rig.heartbeat.last_success_s is not None


def test_without_a_backend_nothing_is_sent_until_there_is_one(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.heartbeat.reconfigure(backend=None, hostname="web-1", interval_ms=3_600_000, remote_commands=True)
    rig.heartbeat.start()
    while rig.heartbeat.last_sample is None:
        gevent.sleep(0.001)
    assert rig.backend.bodies.empty()
    rig.heartbeat.reconfigure(backend=rig.backend, hostname="renamed", interval_ms=3_600_000, remote_commands=True)
    assert rig.backend.next_body()["hostname"] == "renamed"


@pytest.mark.parametrize(
    ("asked", "granted_s"),
    [(60_000, 60), (1, MIN_SERVER_INTERVAL_MS / 1000), (10**9, MAX_SERVER_INTERVAL_MS / 1000)],
)
def test_the_backend_chooses_the_interval_within_bounds(rig: Rig, asked: int, granted_s: float) -> None:
    rig.backend.answer = HeartbeatAnswer(commands=(), heartbeatInterval=asked)
    rig.heartbeat.start()
    rig.successes.get(timeout=DEADLINE_S)
    assert rig.heartbeat.interval_s == granted_s


RESTART = RemoteCommand(id=5, type="restart", source="api")


def test_commands_in_the_answer_are_done_then_acknowledged(rig: Rig) -> None:
    rig.backend.answer = HeartbeatAnswer(commands=(RESTART,))
    rig.busy = Event()
    rig.heartbeat.start()
    while not rig.commands:
        gevent.sleep(0.001)
    assert rig.backend.acks.empty()
    rig.busy.set()
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)
    assert rig.backend.fetches == 0


def test_an_answer_that_says_nothing_of_commands_makes_the_agent_ask(rig: Rig) -> None:
    rig.backend.answer = HeartbeatAnswer()
    rig.backend.waiting = (RESTART,)
    rig.heartbeat.start()
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)


def test_a_command_offered_again_is_acknowledged_again_and_done_once(rig: Rig) -> None:
    rig.backend.answer = HeartbeatAnswer(commands=(RESTART,))
    rig.backend.ack_error = Retryable("lost")
    rig.heartbeat.start()
    for _ in range(3):
        assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)
    assert rig.commands == [RESTART]


def test_another_backend_s_command_of_the_same_number_is_done(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.backend.answer = HeartbeatAnswer(commands=(RESTART,))
    rig.heartbeat.start()
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)
    reconfigure(rig, other_backend=False)
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)
    assert rig.commands == [RESTART]
    reconfigure(rig, other_backend=True)
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)
    assert rig.commands == [RESTART, RESTART]


def reconfigure(rig: Rig, *, other_backend: bool) -> None:
    rig.heartbeat.reconfigure(
        backend=rig.backend,
        hostname="web-1",
        interval_ms=3_600_000,
        remote_commands=True,
        other_backend=other_backend,
    )


def test_another_backend_is_not_told_of_the_former_one_s_commands(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.backend.answer = HeartbeatAnswer(commands=(RESTART, RemoteCommand(id=6, type="stop", source="api")))
    rig.busy = Event()
    rig.heartbeat.start()
    rig.successes.get(timeout=DEADLINE_S)
    while not rig.commands:
        gevent.sleep(0.001)
    rig.backend.answer = HeartbeatAnswer(commands=())
    reconfigure(rig, other_backend=True)
    rig.successes.get(timeout=DEADLINE_S)
    rig.busy.set()
    rig.heartbeat.stop()
    assert rig.commands == [RESTART]
    assert rig.backend.acks.empty()


def test_an_answer_that_comes_after_the_change_of_backend_brings_no_command(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    former, rig.backend = rig.backend, ScriptedBackend()
    former.answer = HeartbeatAnswer(commands=(RESTART,))
    former.hold = Event()
    rig.heartbeat.start()
    former.next_body()
    reconfigure(rig, other_backend=True)
    former.hold.set()
    for _ in range(2):
        rig.successes.get(timeout=DEADLINE_S)
    rig.heartbeat.stop()
    assert rig.commands == []
    assert former.acks.empty()


def test_another_backend_is_asked_for_commands_though_the_former_one_had_none_of_them(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=3_600_000)
    rig.backend.answer = HeartbeatAnswer()
    rig.backend.waiting = Unsupported("no such route")
    rig.heartbeat.start()
    while not rig.backend.fetches:
        gevent.sleep(0.001)
    rig.backend.waiting = (RESTART,)
    reconfigure(rig, other_backend=True)
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)


def test_a_long_command_keeps_neither_the_grid_nor_itself_waiting(rig: Rig) -> None:
    rig.backend.answer = HeartbeatAnswer(commands=(RESTART,))
    rig.busy = Event()
    rig.heartbeat.start()
    for _ in range(4):
        rig.backend.next_body()
    assert rig.commands == [RESTART]
    rig.busy.set()
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, True)


def test_a_command_that_fails_is_acknowledged_as_failed(rig: Rig) -> None:
    rig.outcome = OrionError("cannot restart api: no such script; look at orion script list")
    rig.backend.answer = HeartbeatAnswer(commands=(RESTART,))
    rig.heartbeat.start()
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (5, False)


def test_a_command_of_an_unknown_type_is_refused_unasked(rig: Rig) -> None:
    rig.backend.answer = HeartbeatAnswer(commands=(RemoteCommand(id=6, type="run", source="rm -rf /"),))
    rig.heartbeat.start()
    assert rig.backend.acks.get(timeout=DEADLINE_S) == (6, False)
    assert rig.commands == []


def test_switched_off_remote_commands_are_neither_done_nor_asked_for(rig: Rig) -> None:
    rig.heartbeat = rig.build(interval_ms=20, remote_commands=False)
    rig.backend.answer = HeartbeatAnswer()
    rig.backend.waiting = (RESTART,)
    rig.heartbeat.start()
    for _ in range(3):
        rig.successes.get(timeout=DEADLINE_S)
    assert rig.commands == []
    assert rig.backend.fetches == 0


def test_a_backend_without_commands_is_left_in_peace(rig: Rig) -> None:
    rig.backend.answer = HeartbeatAnswer()
    rig.backend.waiting = Unsupported("no such route")
    rig.heartbeat.start()
    for _ in range(4):
        rig.successes.get(timeout=DEADLINE_S)
    assert rig.backend.fetches == 1


@given(st.floats(0, 1e6), st.floats(0.001, 3600), st.floats(0, 1e7))
def test_the_next_slot_is_ahead_on_the_grid_and_at_most_one_interval_away(
    start_s: float, interval_s: float, passed_s: float
) -> None:
    now_s = start_s + passed_s
    due_s = next_slot_s(start_s, interval_s, now_s)
    assert due_s > now_s
    assert due_s - now_s <= interval_s * 1.001 + 1e-6
    slots = (due_s - start_s) / interval_s
    assert abs(slots - round(slots)) < 1e-3
