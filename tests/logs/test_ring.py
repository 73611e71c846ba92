"""The recent past is bounded by entries and bytes, and a reader who is slow costs nobody but himself."""

import gevent

from orionagent.logs.encode import encode_batch
from orionagent.logs.ring import Ring
from tests.logs.journals import batch, numbered


def add(ring: Ring, first: int, last: int, source: str = "api") -> None:
    ring.add(source, last - first + 1, encode_batch(numbered(first, last, source=source), first))


def texts(entries: list[dict[str, object]]) -> list[object]:
    return [entry["message"] for entry in entries]


def test_the_last_thousand_entries_of_each_source_are_there() -> None:
    ring = Ring()
    for first in range(1, 3001, 7):
        add(ring, first, first + 6)
    found = texts(ring.tail("api", 5000))
    assert len(found) <= 1000
    assert found[-1] == "line 3003"
    assert len(found) > 900
    assert texts(ring.tail("api", 3)) == ["line 3001", "line 3002", "line 3003"]
    assert ring.tail("nobody", 10) == []
    assert ring.tail("api", 0) == []


def test_long_lines_are_bounded_by_bytes() -> None:
    ring = Ring()
    for number in range(100):
        lines = batch(*[f"{number}" + "x" * 5000] * 10)
        ring.add("api", 10, encode_batch(lines, number * 10 + 1))
    found = ring.tail("api", 1000)
    assert 10 <= len(found) <= 26
    assert found[-1]["seq"] == 1000


def test_sources_are_shown_together_in_the_order_they_came() -> None:
    ring = Ring()
    for number in range(1, 9):
        add(ring, number, number, "odd" if number % 2 else "even")
    assert texts(ring.tail(None, 5)) == [f"line {n}" for n in range(4, 9)]
    ring.drop_source("even")
    assert texts(ring.tail(None, 3)) == ["line 3", "line 5", "line 7"]


def test_a_follower_that_does_not_read_loses_the_oldest_and_is_told_how_many() -> None:
    ring = Ring()
    with ring.follow("api") as follower:
        for first in range(1, 40_001, 100):
            add(ring, first, first + 99)
        received = []
        while batch_ := follower.next(0.01):
            received += texts(batch_)
        assert follower.lost > 0
        assert follower.lost + len(received) == 40_000
        assert received[-1] == "line 40000"


def test_closing_lets_a_waiting_reader_go() -> None:
    ring = Ring()
    follower = ring.follow(None)
    reader = gevent.spawn(list, follower)
    gevent.sleep(0)
    add(ring, 1, 2)
    gevent.sleep(0)
    follower.close()
    reader.join(timeout=5)
    assert texts(reader.value or []) == ["line 1", "line 2"]
    add(ring, 3, 3)
