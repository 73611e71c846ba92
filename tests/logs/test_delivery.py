"""Over real connections to a backend that misbehaves, every entry arrives, twice at most under the same number."""

import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import gevent
import pytest

from orionagent.backend import Backend
from orionagent.logs.drain import PAUSE_S
from orionagent.logs.shipper import Shipper
from orionagent.paths import Paths
from tests.faults.fixtures import FaultyBackend
from tests.faults.script import Received
from tests.logs.journals import BOOT, alert, batch, numbered

Start = Callable[..., Shipper]


@pytest.fixture
def start(paths: Paths) -> Iterator[Start]:
    """Yield a function that starts a shipper towards a faulty backend; all are stopped in the end."""
    running: list[tuple[Shipper, Backend]] = []

    def begin(faulty: FaultyBackend, *, tokens: dict[str, str] | None = None, **config: Any) -> Shipper:
        agent = faulty.config(**config)
        backend = Backend(agent, "host", connect_timeout_s=2.0, total_timeout_s=2.0)
        shipper = Shipper(paths, agent, backend, boot_id=BOOT, token_for=(tokens or {}).get, draw=lambda: 0.0)
        shipper.start()
        running.append((shipper, backend))
        return shipper

    yield begin
    for shipper, backend in running:
        shipper.stop(0.0)
        backend.close()


def wait_through(shipper: Shipper, faulty: FaultyBackend, entries: int, *, alerts: int = 0) -> Received:
    """Wait until so much has arrived; stand in for the heartbeats that wake the shipper after a failure."""
    with gevent.Timeout(60, TimeoutError(f"{shipper.link()}")):
        while True:
            shipper.wake()
            found = faulty.received()
            if len(found.entries) >= entries and len(found.alerts) >= alerts and not shipper.report().entries:
                return found
            gevent.sleep(0.05)


FAULTS: dict[str, list[dict[str, Any]]] = {
    "reset on accept": [{"do": "reset-on-accept"}],
    "hangs before reading": [{"do": "hang-before-reading"}],
    "hangs after reading": [{"do": "hang-after-reading", "stored": True}],
    "resets in the body": [{"do": "reset-mid-body"}],
    "closes in the body": [{"do": "close-mid-body"}],
    "drops the answer": [{"do": "drop-answer", "times": 3}],
    "breaks the answer off": [{"do": "truncate-answer", "times": 2}],
    "never ends the answer": [{"do": "flood"}],
    "answers garbage": [{"do": "garbage", "body": "hello?\r\n\r\n", "times": 2}],
    "storms 503": [{"do": "status", "status": 503, "times": 5}],
    "drips the answer": [{"do": "drip", "seconds": 0.01}],
    "one after another": [
        {"do": "drop-answer"},
        {"do": "status", "status": 500},
        {"do": "reset-mid-body"},
        {"do": "status", "status": 408},
        {"do": "garbage", "body": "\0"},
    ],
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_entry_arrives_once_in_order_whatever_goes_wrong(start: Start, faulty: FaultyBackend, name: str) -> None:
    for fault in FAULTS[name]:
        faulty.fail(**fault)
    shipper = start(faulty)
    for first in range(1, 601, 20):
        shipper.offer(numbered(first, first + 19))
        gevent.sleep(0)
    found = wait_through(shipper, faulty, 600)
    assert [entry["message"] for entry in found.entries] == [f"line {n}" for n in range(1, 601)]
    status = shipper.buffer_status()
    assert (status.droppedTotal, status.rejectedTotal) == (0, 0)
    assert shipper.link().state == "connected"


def test_a_backend_that_goes_away_and_comes_back_gets_everything(start: Start, faulty: FaultyBackend) -> None:
    shipper = start(faulty)
    shipper.offer(numbered(1, 10))
    faulty.wait_for(entries=10)
    faulty.refuse()
    for first in range(11, 111, 10):
        shipper.offer(numbered(first, first + 9))
    with gevent.Timeout(20):
        while shipper.link().state != "retrying":
            gevent.sleep(0.02)
    assert shipper.link().lastError is not None
    faulty.listen()
    found = wait_through(shipper, faulty, 110)
    assert [entry["message"] for entry in found.entries] == [f"line {n}" for n in range(1, 111)]


def test_connections_are_reused(start: Start, faulty: FaultyBackend) -> None:
    shipper = start(faulty)
    for number in range(1, 6):
        shipper.offer(numbered(number, number))
        faulty.wait_for(entries=number)
    assert faulty.received().connections == 1


@pytest.mark.parametrize("how", [{"headers": {"Retry-After": "90"}}, {"retry_after_date_s": 90.0}])
def test_a_storm_of_429_is_answered_by_waiting_as_told(
    start: Start, faulty: FaultyBackend, how: dict[str, Any]
) -> None:
    faulty.fail("status", status=429, times=0, **how)
    shipper = start(faulty)
    shipper.offer(numbered(1, 3))
    faulty.wait_for(requests=1)
    with gevent.Timeout(20):
        while shipper.link().state != "retrying":
            gevent.sleep(0.02)
    shipper.wake()
    due = shipper.link().nextAttemptSeconds
    assert due is not None
    assert 80 < due <= 91
    assert len(faulty.requests("/agent/logs")) == 1
    faulty.clear()
    assert shipper.flush_now().sent == 3


def test_entries_go_under_their_sources_token_and_a_refused_one_waits_alone(
    start: Start, faulty: FaultyBackend
) -> None:
    faulty.rule(forbidden_tokens=["web-token"])
    shipper = start(faulty, tokens={"web": "web-token"})
    shipper.offer(numbered(1, 5, source="web"))
    shipper.offer(numbered(6, 10, source="api"))
    found = faulty.wait_for(entries=5)
    assert {entry["source"] for entry in found.entries} == {"api"}
    with gevent.Timeout(20):
        while shipper.link().state != "paused":
            gevent.sleep(0.02)
    faulty.rule()
    shipper.flush_now()
    found = faulty.wait_for(entries=10)
    tokens = {request.headers["authorization"] for request in faulty.requests("/agent/logs")}
    assert tokens == {"Bearer web-token", "Bearer test-token"}


def test_limits_and_poison_cost_only_the_entry_concerned(start: Start, faulty: FaultyBackend) -> None:
    faulty.rule(max_bytes=20_000, poison="poison")
    shipper = start(faulty)
    texts = [f"line {number}" for number in range(500)]
    texts[123] = "poison"
    texts[321] = "x" * 30_000
    shipper.offer(batch(*texts))
    found = wait_through(shipper, faulty, 498)
    assert [entry["message"] for entry in found.entries] == [t for t in texts if len(t) < 100 and t != "poison"]
    assert shipper.buffer_status().rejectedTotal == 2


@pytest.mark.parametrize("status", [404, 405, 415])
def test_an_older_backend_gets_single_entries_and_no_alerts(start: Start, faulty: FaultyBackend, status: int) -> None:
    faulty.rule(missing_routes=["/agent/logs", "/agent/alert"], missing_status=status)
    shipper = start(faulty)
    shipper.offer(numbered(1, 20))
    shipper.offer_alert(alert())
    found = wait_through(shipper, faulty, 21)
    assert [entry["message"] for entry in found.entries] == [*(f"line {n}" for n in range(1, 21)), "api crashed"]
    assert found.entries[-1]["level"] == "fatal"


def test_many_alerts_follow_each_other_without_the_pause_that_lets_lines_gather(
    start: Start, faulty: FaultyBackend
) -> None:
    shipper = start(faulty)
    for number in range(30):
        shipper.offer_alert(alert(f"crash-{number}"))
    found = wait_through(shipper, faulty, 0, alerts=30)
    assert [found_alert["id"] for found_alert in found.alerts] == [f"crash-{number}" for number in range(30)]
    moments = [request.at_s for request in found.requests if request.path.endswith("/agent/alert")]
    assert statistics.median(later - earlier for earlier, later in pairwise(moments)) < PAUSE_S / 2


def test_alerts_arrive_once_though_the_answer_was_lost(start: Start, faulty: FaultyBackend) -> None:
    faulty.fail("drop-answer", path="/agent/alert")
    shipper = start(faulty)
    shipper.offer(numbered(1, 2))
    shipper.offer_alert(alert("crash-1"))
    shipper.offer(numbered(3, 4))
    found = wait_through(shipper, faulty, 4, alerts=1)
    assert [found_alert["id"] for found_alert in found.alerts] == ["crash-1"]


def test_stopping_delivers_what_is_left(start: Start, faulty: FaultyBackend, paths: Paths) -> None:
    shipper = start(faulty)
    for first in range(1, 101, 10):
        shipper.offer(numbered(first, first + 9))
    shipper.stop(20.0)
    assert len(faulty.received().entries) == 100


def test_a_stop_while_the_backend_hangs_is_bounded_and_keeps_everything(start: Start, faulty: FaultyBackend) -> None:
    faulty.fail("hang-after-reading", times=0)
    shipper = start(faulty)
    shipper.offer(numbered(1, 5))
    faulty.wait_for(connections=1)
    with gevent.Timeout(15):
        shipper.stop(0.2)
    faulty.clear()
    again = start(faulty)
    found = wait_through(again, faulty, 5)
    assert [entry["seq"] for entry in found.entries] == [1, 2, 3, 4, 5]
