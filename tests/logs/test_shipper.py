"""The shipper delivers in order, retries by the kind of failure, and lets lanes fail apart."""

import json
from collections.abc import Callable, Iterator

import gevent
import pytest

from orionagent.config import AgentConfig
from orionagent.errors import BackendError, Permanent, Refused, Retryable, TooLarge
from orionagent.logs.shipper import Shipper
from orionagent.paths import Paths
from tests.logs.journals import BOOT, alert, batch, numbered
from tests.logs.standin import Answer, Call, StandIn, knows_not

Start = Callable[..., Shipper]


@pytest.fixture
def start(paths: Paths) -> Iterator[Start]:
    """Yield a function that starts a shipper over a backend; all are stopped in the end."""
    started: list[Shipper] = []

    def begin(backend: StandIn, *, tokens: dict[str, str] | None = None, **config: object) -> Shipper:
        shipper = Shipper(
            paths,
            AgentConfig(**{"token": "server", "apiUrl": "http://127.0.0.1:1", **config}),  # type: ignore[arg-type]
            backend,
            boot_id=BOOT,
            token_for=(tokens or {}).get,
            draw=lambda: 0.0,
        )
        shipper.start()
        started.append(shipper)
        return shipper

    yield begin
    for shipper in started:
        shipper.stop(0.0)


class Fails:
    """Answers with an error until told otherwise."""

    def __init__(self, error: BackendError | None) -> None:
        self.error = error

    def __call__(self, _: Call) -> Answer:
        return self.error


def test_lines_arrive_in_order_under_one_instance(start: Start) -> None:
    backend = StandIn()
    shipper = start(backend)
    for first in range(1, 1001, 10):
        shipper.offer(numbered(first, first + 9))
    backend.wait_until(lambda b: len(b.entries) == 1000)
    assert backend.messages() == [f"line {n}" for n in range(1, 1001)]
    assert [entry["seq"] for entry in backend.entries] == list(range(1, 1001))
    assert len({entry["instance"] for entry in backend.entries}) == 1
    assert shipper.link().state == "connected"
    assert shipper.report().entries == 0


def test_a_restart_sends_what_was_not_acknowledged_again_under_the_same_numbers(start: Start) -> None:
    fails = Fails(Retryable("no connection"))
    down = StandIn(fails)
    first = start(down)
    first.offer(numbered(1, 3))
    down.wait_until(lambda b: bool(b.calls))
    first.stop(0.0)
    backend = StandIn()
    second = start(backend)
    second.offer(numbered(4, 4))
    backend.wait_until(lambda b: len(b.entries) == 4)
    assert [entry["seq"] for entry in backend.entries] == [1, 2, 3, 4]


def test_an_outage_shows_and_a_heartbeat_that_succeeds_ends_the_wait(start: Start) -> None:
    fails = Fails(Retryable("cannot send: connection refused"))
    backend = StandIn(fails)
    shipper = start(backend)
    shipper.offer(numbered(1, 2))
    backend.wait_until(lambda b: len(b.calls) == 1)
    gevent.sleep(0)
    link = shipper.link()
    assert (link.state, link.lastError) == ("retrying", "cannot send: connection refused")
    assert link.nextAttemptSeconds is not None
    assert 4 < link.nextAttemptSeconds <= 5
    fails.error = None
    shipper.wake()
    backend.wait_until(lambda b: len(b.entries) == 2)
    assert shipper.link().state == "connected"


def test_a_time_that_the_backend_names_is_kept_even_when_a_heartbeat_succeeds(start: Start) -> None:
    fails = Fails(Retryable("busy", status=429, retry_after_s=120.0))
    backend = StandIn(fails)
    shipper = start(backend)
    shipper.offer(numbered(1, 1))
    backend.wait_until(lambda b: len(b.calls) == 1)
    shipper.wake()
    gevent.sleep(0.05)
    assert len(backend.calls) == 1
    due = shipper.link().nextAttemptSeconds
    assert due is not None
    assert 100 < due <= 120
    fails.error = None
    flushed = shipper.flush_now()
    assert (flushed.sent, flushed.remaining) == (1, 0)


def test_a_refused_token_pauses_its_lane_only_and_a_reload_tries_again(start: Start) -> None:
    refused = {"own"}
    backend = StandIn(lambda call: Refused("no", status=401) if call.token in refused else None)
    shipper = start(backend, tokens={"web": "own"})
    for number in range(1, 6):
        shipper.offer(numbered(number, number, source="web"))
        shipper.offer(numbered(number, number, source="api"))
    backend.wait_until(lambda b: len(b.entries) == 5)
    assert {entry["source"] for entry in backend.entries} == {"api"}
    assert shipper.link().state == "paused"
    assert shipper.report().entries == 5
    refused.clear()
    shipper.reconfigure(AgentConfig(token="server", apiUrl="http://127.0.0.1:1"))
    backend.wait_until(lambda b: len(b.entries) == 10)
    own = [entry for entry in backend.entries if entry["token"] == "own"]
    assert [entry["message"] for entry in own] == [f"line {n}" for n in range(1, 6)]
    assert shipper.link().state == "connected"


def test_without_a_token_everything_is_kept_and_nothing_tried(start: Start) -> None:
    backend = StandIn()
    shipper = start(backend, token=None)
    shipper.offer(numbered(1, 2))
    gevent.sleep(0.05)
    assert shipper.link().state == "not-configured"
    assert backend.calls == []
    shipper.reconfigure(AgentConfig(token="new", apiUrl="http://127.0.0.1:1"))
    backend.wait_until(lambda b: len(b.entries) == 2)


def test_a_request_that_is_too_large_is_halved_until_it_passes(start: Start) -> None:
    backend = StandIn(lambda call: TooLarge("too large", status=413) if call.size > 2000 else None)
    shipper = start(backend)
    shipper.offer(numbered(1, 200))
    backend.wait_until(lambda b: len(b.entries) == 200)
    assert backend.messages() == [f"line {n}" for n in range(1, 201)]
    assert shipper.buffer_status().rejectedTotal == 0


def test_an_entry_too_large_by_itself_is_set_aside(start: Start, paths: Paths) -> None:
    backend = StandIn(lambda call: TooLarge("too large", status=413) if call.size > 2000 else None)
    shipper = start(backend)
    shipper.offer(batch("before", "x" * 3000, "after"))
    backend.wait_until(lambda b: len(b.entries) == 2)
    assert backend.messages() == ["before", "after"]
    assert shipper.buffer_status().rejectedTotal == 1


def test_the_one_poison_entry_is_found_set_aside_and_the_rest_arrives_in_order(start: Start, paths: Paths) -> None:
    def judge(call: Call) -> Answer:
        poisoned = any("poison" in line["message"] for line in call.lines)
        return Permanent("answers 422", status=422) if poisoned else None

    backend = StandIn(judge)
    shipper = start(backend)
    texts = [f"line {n}" for n in range(1000)]
    texts[617] = "poison"
    shipper.offer(batch(*texts))
    backend.wait_until(lambda b: len(b.entries) == 999)
    assert backend.messages() == [text for text in texts if text != "poison"]
    assert len(backend.calls) < 60
    status = shipper.buffer_status()
    assert (status.entries, status.rejectedTotal, status.droppedTotal) == (0, 1, 0)
    with open(paths.rejected, encoding="utf-8") as file:
        (line,) = map(json.loads, file)
    assert (line["entry"]["message"], line["reason"]) == ("poison", "answers 422")


def test_a_backend_that_refuses_every_entry_is_not_fed_the_whole_buffer(start: Start) -> None:
    backend = StandIn(Fails(Permanent("answers 400", status=400)))
    shipper = start(backend)
    shipper.offer(numbered(1, 100))
    backend.wait_until(lambda b: len(b.calls) > 5 and shipper.link().state == "retrying")
    assert shipper.buffer_status().rejectedTotal == 3
    assert shipper.report().entries == 97


def test_a_redirect_is_the_address_fault_and_no_entry_is_set_aside(start: Start) -> None:
    backend = StandIn(Fails(Permanent("answers 302", status=302)))
    shipper = start(backend)
    shipper.offer(numbered(1, 4))
    backend.wait_until(lambda b: len(b.calls) == 1)
    gevent.sleep(0.01)
    assert shipper.link().state == "retrying"
    assert shipper.buffer_status().rejectedTotal == 0


def test_a_backend_without_batches_gets_single_entries(start: Start) -> None:
    backend = StandIn(knows_not("logs"))
    shipper = start(backend)
    shipper.offer(numbered(1, 250))
    backend.wait_until(lambda b: len(b.entries) == 250)
    assert backend.messages() == [f"line {n}" for n in range(1, 251)]
    assert [call.route for call in backend.calls].count("logs") == 1
    assert backend.entries[0]["metadata"] == {"source": "api", "stream": "stdout"}
    assert shipper.report().entries == 0


def test_single_entries_that_got_through_before_a_failure_are_not_sent_again(start: Start) -> None:
    def judge(call: Call) -> Answer:
        if call.route == "logs":
            return knows_not("logs")(call)
        return Retryable("busy", status=503) if len(backend.calls) == 42 else None

    backend = StandIn(judge)
    shipper = start(backend)
    shipper.offer(numbered(1, 90))
    backend.wait_until(lambda b: len(b.calls) == 42)
    gevent.sleep(0)
    shipper.wake()
    backend.wait_until(lambda b: len(b.entries) == 90)
    assert [entry["seq"] for entry in backend.entries] == list(range(1, 91))


def test_alerts_go_in_order_with_the_logs_of_their_lane(start: Start) -> None:
    backend = StandIn()
    shipper = start(backend)
    shipper.offer(numbered(1, 2))
    shipper.offer_alert(alert("crash-1"))
    shipper.offer(numbered(3, 3))
    backend.wait_until(lambda b: len(b.entries) == 3)
    assert [call.route for call in backend.calls] == ["logs", "alert", "logs"]
    assert backend.alerts[0]["id"] == "crash-1"


@pytest.mark.parametrize("missing", [("alert",), ("alert", "logs")])
def test_where_alerts_are_unknown_a_fatal_entry_carries_their_facts(start: Start, missing: tuple[str, ...]) -> None:
    backend = StandIn(knows_not(*missing))
    shipper = start(backend)
    shipper.offer_alert(alert("crash-1"))
    shipper.offer_alert(alert("crash-2"))
    backend.wait_until(lambda b: len(b.entries) == 2)
    first = backend.entries[0]
    assert (first["level"], first["message"]) == ("fatal", "api crashed")
    assert (first["metadata"]["id"], first["metadata"]["exitCode"]) == ("crash-1", 1)
    assert [call.route for call in backend.calls].count("alert") == 1
    assert shipper.report().entries == 0


def test_what_an_outage_pushed_out_is_reported_in_one_entry(start: Start) -> None:
    fails = Fails(Retryable("down"))
    backend = StandIn(fails)
    shipper = start(backend, bufferMaxEntries=100)
    shipper.offer(numbered(1, 1))
    backend.wait_until(lambda b: len(b.calls) == 1)
    gevent.sleep(0)
    for number in range(2, 351):
        shipper.offer(numbered(number, number, at=f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}.000Z"))
    fails.error = None
    shipper.wake()
    backend.wait_until(lambda b: len(b.entries) == 101)
    assert backend.messages()[:100] == [f"line {n}" for n in range(251, 351)]
    report = backend.entries[100]
    assert (report["source"], report["level"]) == ("orion-agent", "warn")
    assert report["metadata"] == {
        "dropped": 250,
        "droppedTotal": 250,
        "from": "2026-01-01T00:00:02.000Z",
        "to": "2026-01-02T03:04:05.006Z",
    }
    assert shipper.report().droppedTotal == 250


def test_the_tail_and_a_follower_see_entries_whatever_the_backend_does(start: Start) -> None:
    shipper = start(StandIn(Fails(Retryable("down"))))
    shipper.offer(numbered(1, 5))
    shipper.offer(numbered(6, 7, source="web"))
    assert [entry["message"] for entry in shipper.tail("api", 2)] == ["line 4", "line 5"]
    assert [entry["message"] for entry in shipper.tail(None, 4)] == ["line 4", "line 5", "line 6", "line 7"]
    with shipper.follow("web") as follower:
        shipper.offer(numbered(8, 8))
        shipper.offer(numbered(9, 9, source="web"))
        assert [entry["message"] for entry in follower.next(5.0)] == ["line 9"]
