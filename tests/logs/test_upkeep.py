"""While the backend is away the disk has everything within a second; afterwards the journal shrinks again."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence

import gevent
import pytest
from gevent.event import Event

from orionagent.config import AgentConfig
from orionagent.errors import Retryable
from orionagent.logs.disk import Disk
from orionagent.logs.shipper import Shipper
from orionagent.paths import Paths
from tests.logs.journals import BOOT, batch, numbered
from tests.logs.standin import StandIn

Start = Callable[..., Shipper]


@pytest.fixture
def start(paths: Paths) -> Iterator[Start]:
    """Yield a function that starts a shipper on a disk; all are stopped in the end."""
    started: list[Shipper] = []

    def begin(backend: StandIn, disk: Disk | None = None) -> Shipper:
        config = AgentConfig(token="t", apiUrl="http://127.0.0.1:1", bufferMaxEntries=1000)
        shipper = Shipper(paths, config, backend, boot_id=BOOT, token_for=lambda _: None, disk=disk, draw=lambda: 0.0)
        shipper.start()
        started.append(shipper)
        return shipper

    yield begin
    for shipper in started:
        shipper.stop(0.0)


class WatchedDisk(Disk):
    """Counts syncs, and refuses to write while `full`."""

    def __init__(self) -> None:
        self.syncs = 0
        self.synced = Event()
        self.full = False
        self._hub = gevent.get_hub()

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.syncs += 1
        self._hub.loop.run_callback_threadsafe(self.synced.set)

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        super().write(descriptor, pieces, offset)


def wait_until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    with gevent.Timeout(timeout_s):
        while not holds():
            gevent.sleep(0.02)


def test_while_the_backend_is_away_entries_go_to_the_disk_and_then_nothing_ticks(start: Start) -> None:
    disk = WatchedDisk()
    backend = StandIn(lambda _: Retryable("down"))
    shipper = start(backend, disk)
    shipper.offer(numbered(1, 3))
    backend.wait_until(lambda b: bool(b.calls))
    assert disk.synced.wait(20)
    wait_until(lambda: shipper.disk_at_rest)
    before = disk.syncs
    disk.synced.clear()
    shipper.offer(numbered(4, 4))
    assert disk.synced.wait(20)
    assert disk.syncs == before + 1


class HeldDisk(Disk):
    """Says when a sync begins, and ends it only when told to."""

    def __init__(self) -> None:
        self.begun = Event()
        self._hub = gevent.get_hub()
        self._read_end, self._write_end = os.pipe()

    def sync(self, descriptor: int) -> None:
        self._hub.loop.run_callback_threadsafe(self.begun.set)
        os.read(self._read_end, 1)

    def let_go(self) -> None:
        os.close(self._write_end)

    def end(self) -> None:
        os.close(self._read_end)


def test_a_stop_during_a_sync_ends_with_it(start: Start) -> None:
    disk = HeldDisk()
    shipper = start(StandIn(lambda _: Retryable("down")), disk)
    shipper.offer(numbered(1, 3))
    assert disk.begun.wait(20)
    stopping = gevent.spawn(shipper.stop, 0.0)
    gevent.sleep(0)
    disk.let_go()
    stopping.join(timeout=5.0)
    assert stopping.successful(), "5 s: it gives up waiting after 10"
    disk.end()


def test_a_quick_backend_costs_no_sync(start: Start) -> None:
    disk = WatchedDisk()
    backend = StandIn()
    shipper = start(backend, disk)
    for number in range(1, 200):
        shipper.offer(numbered(number, number))
        gevent.sleep(0.005)
    backend.wait_until(lambda b: len(b.entries) == 199)
    assert disk.syncs == 0


def test_the_journal_shrinks_once_its_backlog_is_delivered(start: Start, paths: Paths) -> None:
    down: list[Retryable] = [Retryable("down")]
    backend = StandIn(lambda _: down[0] if down else None)
    shipper = start(backend)
    for _ in range(20):
        shipper.offer(batch(*["x" * 100_000] * 10))
    backend.wait_until(lambda b: bool(b.calls))
    wait_until(lambda: shipper.disk_at_rest)
    down.clear()
    shipper.wake()
    backend.wait_until(lambda b: len(b.entries) == 200)
    wait_until(lambda: os.path.getsize(paths.buffer) < 100_000)


def test_a_full_disk_shows_in_the_status_stops_nobody_and_is_tried_again(start: Start) -> None:
    disk = WatchedDisk()
    backend = StandIn()
    shipper = start(backend, disk)
    disk.full = True
    shipper.offer(numbered(1, 5))
    status = shipper.buffer_status()
    assert status.memoryOnly
    assert status.diskError is not None
    assert "no space left" in status.diskError
    backend.wait_until(lambda b: len(b.entries) == 5)
    disk.full = False
    wait_until(lambda: not shipper.buffer_status().memoryOnly)


def test_a_journal_that_somebody_removes_is_written_anew(start: Start, paths: Paths) -> None:
    backend = StandIn(lambda _: Retryable("down"))
    shipper = start(backend)
    shipper.offer(numbered(1, 3))
    wait_until(lambda: shipper.disk_at_rest)
    os.unlink(paths.buffer)
    number = 3

    def is_back() -> bool:
        nonlocal number
        number += 1
        shipper.offer(numbered(number, number))
        gevent.sleep(0.1)
        return os.path.exists(paths.buffer)

    wait_until(is_back)
    shipper.stop(0.0)
    again = StandIn()
    start(again)
    again.wait_until(lambda b: len(b.entries) == number)
    assert again.messages() == [f"line {n}" for n in range(1, number + 1)]
