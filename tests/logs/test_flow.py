"""Readers wait for a quick backend, briefly for a slow one, and never for one that fails."""

import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from orionagent.config import AgentConfig
from orionagent.errors import Retryable
from orionagent.logs.flow import BUDGET_S, Budget, pace
from orionagent.logs.shipper import Shipper
from orionagent.paths import Paths
from tests.logs.journals import BOOT, alert, numbered
from tests.logs.standin import Call, StandIn

Start = Callable[..., Shipper]


@pytest.fixture
def start(paths: Paths) -> Iterator[Start]:
    """Yield a function that starts a shipper with a small buffer; all are stopped in the end."""
    started: list[Shipper] = []

    def begin(backend: StandIn, *, entries: int, budget: Budget | None = None) -> Shipper:
        shipper = Shipper(
            paths,
            AgentConfig(token="server", apiUrl="http://127.0.0.1:1", bufferMaxEntries=entries),
            backend,
            boot_id=BOOT,
            token_for={"own": "other"}.get,
            budget=budget,
            draw=lambda: 0.0,
        )
        shipper.start()
        started.append(shipper)
        return shipper

    yield begin
    for shipper in started:
        shipper.stop(0.0)


def test_the_pace_is_named_by_the_last_request_and_the_one_under_way() -> None:
    assert pace(failing=False, last_took_s=0.0, under_way_s=0.0) == "healthy"
    assert pace(failing=False, last_took_s=1.0, under_way_s=1.0) == "healthy"
    assert pace(failing=False, last_took_s=1.1, under_way_s=0.0) == "slow"
    assert pace(failing=False, last_took_s=0.0, under_way_s=1.1) == "slow"
    assert pace(failing=True, last_took_s=0.0, under_way_s=0.0) == "failing"


def test_a_source_has_five_seconds_in_any_minute_and_sources_do_not_share_them() -> None:
    assert BUDGET_S < 5.0, "the promise leaves room for what the machine adds"
    budget = Budget(5.0)
    assert budget.left_s("api", 100.0, 100.0) == 5.0
    budget.spend("api", 100.0, 103.0)
    assert budget.left_s("api", 110.0, 110.0) == 2.0
    assert budget.left_s("api", 111.0, 110.0) == 1.0
    assert budget.left_s("web", 110.0, 110.0) == 5.0
    budget.spend("api", 110.0, 112.0)
    assert budget.left_s("api", 150.0, 150.0) == 0.0
    assert budget.left_s("api", 162.9, 162.9) == 0.0, "the first wait is not a minute past as a whole"
    assert budget.left_s("api", 163.0, 163.0) == 3.0
    assert budget.left_s("api", 172.0, 172.0) == 5.0


def test_waits_of_more_than_a_minute_ago_are_forgotten_also_while_nobody_asks() -> None:
    budget = Budget()
    for second in range(10_000):
        budget.spend("api", second, second + 0.5)
    assert repr(budget) == "Budget(60 waits)"


def test_an_alert_amid_a_burst_costs_no_line_while_the_backend_is_quick(start: Start) -> None:
    backend = StandIn(lambda _: 0.005)
    shipper = start(backend, entries=100)
    shipper.offer(numbered(1, 300))  # an empty buffer takes any batch
    shipper.offer_alert(alert())
    backend.wait_until(lambda seen: len(seen.entries) >= 300 and bool(seen.alerts))
    assert backend.messages() == [f"line {number}" for number in range(1, 301)]
    assert shipper.report().droppedTotal == 0


def test_a_burst_far_beyond_the_buffer_loses_nothing_on_a_quick_backend(start: Start) -> None:
    backend = StandIn(lambda _: 0.005)
    shipper = start(backend, entries=100)

    def write(source: str) -> None:
        for first in range(1, 3001, 60):
            shipper.offer(numbered(first, first + 59, source=source))

    writers = [gevent.spawn(write, source) for source in ("api", "web", "own")]
    gevent.joinall(writers, timeout=60, raise_error=True)
    backend.wait_until(lambda b: len(b.entries) == 9000)
    for source in ("api", "web", "own"):
        texts = [entry["message"] for entry in backend.entries if entry["source"] == source]
        assert texts == [f"line {n}" for n in range(1, 3001)]
    assert shipper.report().droppedTotal == 0


def test_a_batch_larger_than_the_whole_buffer_passes_a_quick_backend_unharmed(start: Start) -> None:
    backend = StandIn()
    shipper = start(backend, entries=100)
    for first in range(1, 1001, 250):
        shipper.offer(numbered(first, first + 249))
    backend.wait_until(lambda b: len(b.entries) == 1000)
    assert shipper.report().droppedTotal == 0


def test_nobody_waits_for_a_backend_that_fails_and_the_newest_entries_stay(start: Start) -> None:
    backend = StandIn(lambda _: Retryable("down"))
    shipper = start(backend, entries=100)
    shipper.offer(numbered(1, 1))
    backend.wait_until(lambda b: bool(b.calls))
    gevent.sleep(0)
    began = gevent.get_hub().loop.now()
    for first in range(2, 2002, 10):
        shipper.offer(numbered(first, first + 9))
    assert gevent.get_hub().loop.now() == began, "the event loop never ran: nobody waited"
    report = shipper.report()
    assert (report.entries, report.droppedTotal) == (100, 1901)
    assert [entry["message"] for entry in shipper.tail("api", 1)] == ["line 2001"]


def test_those_who_wait_are_let_go_when_the_backend_begins_to_fail(start: Start) -> None:
    def answer(_: Call) -> Retryable:
        gevent.sleep(0.3)
        return Retryable("down")

    backend = StandIn(answer)
    shipper = start(backend, entries=100)
    shipper.offer(numbered(1, 100))
    waiting = gevent.spawn(shipper.offer, numbered(101, 200))
    gevent.sleep(0.05)
    assert not waiting.ready()
    waiting.join(timeout=20)
    assert waiting.successful()
    assert shipper.report().droppedTotal == 100


def test_a_slow_backend_holds_a_source_up_only_within_its_budget_and_every_drop_is_told(start: Start) -> None:
    backend = StandIn(lambda _: 1.2)
    shipper = start(backend, entries=100, budget=Budget(1.5, 60.0))
    waited = 0.0
    offered = 0
    while backend.calls == [] or len(backend.calls) < 4:
        began = time.monotonic()
        shipper.offer(numbered(offered + 1, offered + 20))
        offered += 20
        waited = max(waited, time.monotonic() - began)
        gevent.sleep(0.01)
    backend.answer = lambda _: None
    # Waits of the first, still hopeful second do not end by the budget but are charged to it.
    assert waited < 5.0
    backend.wait_until(lambda b: any(entry["source"] == "orion-agent" for entry in b.entries))
    backend.wait_until(lambda _: shipper.report().entries == 0)
    told = sum(e["metadata"]["dropped"] for e in backend.entries if e["source"] == "orion-agent")
    arrived = [e["message"] for e in backend.entries if e["source"] == "api"]
    assert told == shipper.report().droppedTotal == offered - len(arrived) > 0
    assert len(set(arrived)) == len(arrived)


def test_a_paused_lane_that_fills_the_buffer_does_not_hold_up_the_others(start: Start) -> None:
    backend = StandIn(lambda call: Retryable("busy", status=429) if call.token == "other" else None)
    shipper = start(backend, entries=100)
    shipper.offer(numbered(1, 100, source="own"))
    backend.wait_until(lambda b: bool(b.calls))
    gevent.sleep(0)
    for first in range(1, 501, 50):
        shipper.offer(numbered(first, first + 49, source="api"))
    backend.wait_until(lambda b: len(b.entries) >= 500)
    assert shipper.report().droppedTotal <= 100
    texts = [entry["message"] for entry in backend.entries if entry["source"] == "api"]
    assert texts == [f"line {n}" for n in range(1, 501)]
