"""In a rush of work the sockets are heard in between; a single piece of work waits for nobody."""

import os
import time

import gevent

from orionagent.scripts.breath import Breath

CROWD = 40
PIECE_S = 0.003


def work(breath: Breath, order: list[str], name: str) -> None:
    """Stop the loop for some milliseconds, as the start of a process does."""
    breath.take()
    until = time.monotonic() + PIECE_S
    while time.monotonic() < until:
        pass
    order.append(name)
    breath.done()


def test_a_socket_is_heard_in_the_middle_of_a_rush() -> None:
    breath, order = Breath(), list[str]()
    reader, writer = os.pipe()
    os.write(writer, b"a caller")
    watcher = gevent.get_hub().loop.io(reader, 1)

    def hear() -> None:
        order.append("heard")
        watcher.stop()

    watcher.start(hear)
    gevent.joinall([gevent.spawn(work, breath, order, "work") for _ in range(CROWD)])
    watcher.close()
    os.close(reader)
    os.close(writer)
    assert order.count("work") == CROWD
    assert order.index("heard") < CROWD // 2


def test_a_single_piece_of_work_waits_for_nobody() -> None:
    breath, order = Breath(), list[str]()
    other = gevent.spawn(order.append, "another greenlet")
    work(breath, order, "work")
    assert order == ["work"]
    other.join()


def test_one_that_ends_while_it_rests_holds_nobody_up() -> None:
    breath, order = Breath(), list[str]()
    workers = [gevent.spawn(work, breath, order, "work") for _ in range(CROWD)]
    gevent.spawn(gevent.killall, workers[: CROWD // 2], block=False)
    gevent.joinall(workers, timeout=30, raise_error=True)
    assert order.count("work") >= CROWD // 2
