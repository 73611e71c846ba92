"""The words and descriptors that reach systemd, over a real datagram socket."""

import array
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from orionagent import systemd
from orionagent.systemd import JournalFormatter, Notifier, listen_fds, watchdog_period_s


class Manager:
    """The receiving end: what systemd would have read."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(10.0)

    def receive(self) -> tuple[list[str], list[int]]:
        data, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(253 * 4))
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            descriptors.frombytes(payload)
        return data.decode().split("\n"), list(descriptors)


@pytest.fixture
def manager(root: Path) -> Iterator[Manager]:
    listening = Manager(str(root / "notify"))
    yield listening
    listening.sock.close()


@pytest.fixture
def notifier(root: Path, manager: Manager) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": str(root / "notify")})


def test_ready_carries_the_status_on_one_line(manager: Manager, notifier: Notifier) -> None:
    assert notifier.ready("3 scripts\nrunning")
    assert manager.receive() == (["READY=1", "STATUS=3 scripts running"], [])


def test_a_reload_begins_with_the_time_and_ends_with_ready(manager: Manager, notifier: Notifier) -> None:
    assert notifier.reloading()
    assert notifier.ready()
    fields, _ = manager.receive()
    assert fields[0] == "RELOADING=1"
    assert fields[1].startswith("MONOTONIC_USEC=")
    assert manager.receive() == (["READY=1"], [])


def test_the_small_words_are_those_of_sd_notify(manager: Manager, notifier: Notifier) -> None:
    for call, expected in (
        (notifier.watchdog, ["WATCHDOG=1"]),
        (lambda: notifier.stopping("flushing"), ["STOPPING=1", "STATUS=flushing"]),
        (lambda: notifier.extend_timeout(2.5), ["EXTEND_TIMEOUT_USEC=2500000"]),
        (lambda: notifier.main_pid(7), ["MAINPID=7"]),
        (lambda: notifier.remove("web.out"), ["FDSTOREREMOVE=1", "FDNAME=web.out"]),
    ):
        assert call()
        assert manager.receive() == (expected, [])


def test_stored_descriptors_arrive_alive_under_their_name(manager: Manager, notifier: Notifier) -> None:
    reading, writing = os.pipe()
    assert notifier.store("web.stdout", [reading])
    os.close(reading)
    fields, descriptors = manager.receive()
    assert fields == ["FDSTORE=1", "FDNAME=web.stdout", "FDPOLL=0"]
    os.write(writing, b"kept")
    assert os.read(descriptors[0], 10) == b"kept"
    os.close(writing)
    os.close(descriptors[0])


def test_more_descriptors_than_one_message_holds_travel_in_several(manager: Manager, notifier: Notifier) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    wanted = systemd.MAX_DESCRIPTORS_PER_MESSAGE + 5
    assert notifier.store("many", [null] * wanted)
    os.close(null)
    counts: list[int] = []
    while sum(counts) < wanted:
        _, descriptors = manager.receive()
        counts.append(len(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
    assert counts == [systemd.MAX_DESCRIPTORS_PER_MESSAGE, 5]


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "\x7f", "é", "x" * 256])
def test_a_name_that_systemd_rejects_is_refused_here(notifier: Notifier, name: str) -> None:
    with pytest.raises(ValueError, match="cannot store"):
        notifier.store(name, [0])


def test_a_barrier_returns_once_its_descriptor_is_closed_by_the_manager(manager: Manager, notifier: Notifier) -> None:
    def serve() -> None:
        fields, descriptors = manager.receive()
        assert fields == ["BARRIER=1"]
        os.close(descriptors[0])

    serving = gevent.spawn(serve)
    assert notifier.barrier()
    serving.get(timeout=10)


def test_an_abstract_address_is_reached() -> None:
    name = f"orion-test-{os.getpid()}"
    manager = Manager("\0" + name)
    assert Notifier("@" + name).watchdog()
    assert manager.receive() == (["WATCHDOG=1"], [])
    manager.sock.close()


@pytest.mark.parametrize("address", [None, "", "@", "vsock:2:1234", "relative"])
def test_without_a_usable_socket_every_call_is_a_no_op(address: str | None) -> None:
    notifier = Notifier(address)
    assert not notifier.active
    assert not notifier.ready()
    assert not notifier.store("x", [0])
    assert not notifier.barrier()


def test_a_manager_that_is_gone_is_survived(root: Path) -> None:
    notifier = Notifier(str(root / "nobody"))
    assert notifier.active
    assert not notifier.ready()
    assert not notifier.barrier()


def test_the_watchdog_period_is_half_of_what_the_unit_says() -> None:
    assert watchdog_period_s({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_period_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, pid=7) == 15.0
    assert watchdog_period_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, pid=7) is None
    assert watchdog_period_s({}) is None
    assert watchdog_period_s({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_period_s({"WATCHDOG_USEC": "0"}) is None


INHERIT = """
import os, sys
from orionagent.systemd import listen_fds
os.environ["LISTEN_PID"] = str(os.getpid())
found = listen_fds()
print([(name, os.read(fd, 9).decode(), os.get_inheritable(fd)) for name, fd in found])
"""


def test_inherited_descriptors_come_with_names_and_do_not_leak_further() -> None:
    shell = f"exec {sys.executable} -c '{INHERIT}' 3<<<one 4<<<two"
    done = subprocess.run(
        ["bash", "-c", shell],
        env={"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web.out:", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "[('web.out', 'one\\n', False), ('unknown', 'two\\n', False)]\n"


def test_descriptors_meant_for_another_process_are_not_taken() -> None:
    assert listen_fds({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, pid=2) == []
    assert listen_fds({"LISTEN_FDS": "1"}, pid=2) == []
    assert listen_fds({"LISTEN_PID": "2", "LISTEN_FDS": "some"}, pid=2) == []


def test_the_journal_is_recognised_by_device_and_inode(root: Path) -> None:
    with (root / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        own = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert systemd.is_journal(stream.fileno(), own)
        assert not systemd.is_journal(stream.fileno(), {"JOURNAL_STREAM": "1:2"})
        assert not systemd.is_journal(stream.fileno(), {})


def test_every_line_of_a_record_carries_its_priority() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "first\nsecond", None, None)
    assert JournalFormatter("%(message)s").format(record) == "<3>first\n<3>second"
    assert [systemd.journal_prefix(level) for level in (50, 40, 30, 20, 10)] == [
        "<2>",
        "<3>",
        "<4>",
        "<6>",
        "<7>",
    ]
