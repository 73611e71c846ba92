"""The socket: real connections, real peers, no command of the agent's own."""

import os
import socket
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import gevent
import msgpack
import msgspec
import pytest
from gevent.event import Event

from orionagent.errors import NotFound
from orionagent.ipc.access import Access, Caller, Command, Stream
from orionagent.ipc.connection import MOST_STREAMS
from orionagent.ipc.server import KEPT_FOR_OPERATORS, MOST_CONNECTIONS, Server
from tests.ipc.talk import Talk


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A command without parameters."""


class Word(msgspec.Struct):
    """A command about one name."""

    name: str
    follow: bool = False


class Service:
    """Handlers that tests steer: `gate` holds `slow` back, `heard` is what `hear` was told."""

    def __init__(self) -> None:
        self.gate = Event()
        self.heard: list[str] = []
        self.streams = 0
        self.closed = 0

    def echo(self, params: Word, caller: Caller) -> object:
        return {"name": params.name, "uid": caller.uid}

    def slow(self, params: Word, caller: Caller) -> object:
        self.gate.wait(20)
        return {"name": params.name}

    def hear(self, params: Word, caller: Caller) -> object:
        self.heard.append(params.name)
        return {}

    def missing(self, params: Word, caller: Caller) -> object:
        raise NotFound(f"Script not found: {params.name}")

    def broken(self, params: Nothing, caller: Caller) -> object:
        raise ZeroDivisionError("secret detail")

    def unspeakable(self, params: Nothing, caller: Caller) -> object:
        return object()

    def flood(self, params: Nothing, caller: Caller) -> Stream:
        return Stream(self._pour())

    def _pour(self) -> Generator[Sequence[object]]:
        self.streams += 1
        try:
            while True:
                yield [{"entry": "x" * 1000}]
        finally:
            self.streams -= 1

    def wait_for_gate(self, params: Nothing, caller: Caller) -> Stream:
        return Stream(self._quiet(), self._note_close)

    def _note_close(self) -> None:
        self.closed += 1

    def _quiet(self) -> Generator[Sequence[object]]:
        self.streams += 1
        try:
            yield [{"entry": 1}]
            self.gate.wait()
            yield [{"entry": 2}]
        finally:
            self.streams -= 1

    def commands(self) -> dict[str, Command]:
        rows = [
            Command(name="echo", access=Access.EVERYONE, params=Word, handler=self.echo),
            Command(name="slow", access=Access.EVERYONE, params=Word, handler=self.slow),
            Command(name="hear", access=Access.EVERYONE, params=Word, handler=self.hear, limited=True),
            Command(name="missing", access=Access.EVERYONE, params=Word, handler=self.missing),
            Command(name="broken", access=Access.EVERYONE, params=Nothing, handler=self.broken),
            Command(name="unspeakable", access=Access.EVERYONE, params=Nothing, handler=self.unspeakable),
            Command(name="flood", access=Access.EVERYONE, params=Nothing, handler=self.flood),
            Command(name="quiet", access=Access.EVERYONE, params=Nothing, handler=self.wait_for_gate),
        ]
        return {row.name: row for row in rows}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def path(root: Path, service: Service) -> Iterator[str]:
    place = str(root / "agent.sock")
    server = Server(place, service.commands(), owner_uid=os.geteuid(), send_timeout_s=0.3, partial_timeout_s=0.3)
    server.start()
    yield place
    service.gate.set()
    server.stop()
    assert not os.path.exists(place)


def until(condition: object) -> None:
    assert callable(condition)
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.01)


def test_a_request_line_is_answered_by_a_line(path: str) -> None:
    with Talk(path) as talk:
        assert talk.ask(cmd="echo", name="a") == {"ok": True, "data": {"name": "a", "uid": os.getuid()}}


def test_answers_with_ids_overtake_a_slow_one(path: str, service: Service) -> None:
    with Talk(path) as talk:
        talk.send(b'{"cmd":"slow","name":"s","id":1}\n{"cmd":"echo","name":"q","id":"two"}\n')
        assert talk.read_line()["id"] == "two"
        service.gate.set()
        assert talk.read_line() == {"ok": True, "data": {"name": "s"}, "id": 1}


def test_answers_without_ids_keep_the_order_of_the_calls(path: str, service: Service) -> None:
    with Talk(path) as talk:
        talk.send(b'{"cmd":"slow","name":"first"}\n{"cmd":"echo","name":"second"}\n{"cmd":"echo","name":"x","id":9}\n')
        assert talk.read_line()["id"] == 9
        service.gate.set()
        assert [talk.read_line()["data"]["name"] for _ in range(2)] == ["first", "second"]


def test_a_notification_is_done_and_not_answered(path: str, service: Service) -> None:
    with Talk(path) as talk:
        talk.send(b'{"cmd":"hear","name":"a","notify":true}\n{"cmd":"missing","name":"b","notify":true}\n')
        assert talk.ask(cmd="echo", name="c")["data"]["name"] == "c"
        assert service.heard == ["a"]


def test_message_pack_callers_are_recognised_by_their_first_byte(path: str, service: Service) -> None:
    with Talk(path) as talk:
        assert talk.ask_rpc(7, "echo", ["a"]) == [1, 7, None, {"name": "a", "uid": os.getuid()}]
        assert talk.ask_rpc(8, "echo", [{"name": "b"}])[3]["name"] == "b"
        assert talk.ask_rpc(9, "missing", {"name": "c"})[2]["code"] == "not-found"
        talk.send(msgpack.packb([2, "hear", ["d"]]))
        assert talk.ask_rpc(10, "echo", ["e"])[1] == 10
        until(lambda: service.heard == ["d"])


def test_message_pack_streams_come_as_notifications(path: str) -> None:
    with Talk(path) as talk:
        assert talk.ask_rpc(3, "quiet", []) == [1, 3, None, {"stream": 3}]
        assert talk.read_message() == [2, "quiet", [3, {"entry": 1}]]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b'{"cmd":"missing","name":"x"}', "not-found", "Script not found: x"),
        (b'{"cmd":"ecko","name":"x"}', "bad-request", "no such command"),
        (b'{"cmd":"echo","nam":"x"}', "bad-request", "did you mean name?"),
        (b'{"cmd":"echo"}', "bad-request", "no name given"),
        (b'{"cmd":"echo","name":5}', "bad-request", "str"),
        (b"nonsense", "bad-request", "one JSON object a line"),
        (b"[1,2]", "bad-request", "no JSON object"),
        (b'{"name":"x"}', "bad-request", "no cmd"),
        (b"[" * 100_000, "bad-request", "cannot read"),
        (b'{"cmd":"\xff"}', "bad-request", "cannot read"),
        (b'{"cmd":"broken"}', "internal", "ZeroDivisionError"),
        (b'{"cmd":"unspeakable"}', "internal", "TypeError"),
    ],
)
def test_a_bad_request_gets_its_reason_and_the_connection_goes_on(
    path: str, line: bytes, code: str, words: str
) -> None:
    with Talk(path) as talk:
        talk.send(line + b"\n")
        reply = talk.read_line()
        assert (reply["ok"], reply["code"]) == (False, code)
        assert words in reply["error"]
        assert "secret detail" not in reply["error"]
        assert talk.ask(cmd="echo", name="still here")["ok"]


def test_ten_thousand_malformed_lines_get_an_error_each(path: str) -> None:
    with Talk(path) as talk:
        sender = gevent.spawn(talk.send, b"{}\n" * 10_000)
        assert all(talk.read_line()["code"] == "bad-request" for _ in range(10_000))
        sender.join()
        assert talk.ask(cmd="echo", name="a")["ok"]


def test_an_endless_line_is_refused_and_the_connection_closed(path: str) -> None:
    with Talk(path) as talk:
        talk.send(b"x" * (1 << 20) + b"yy")
        assert "longer than" in talk.read_line()["error"]
        assert talk.is_closed()


def test_half_a_message_is_not_waited_for_without_end(path: str) -> None:
    with Talk(path) as talk, Talk(path) as rpc:
        talk.send(b'{"cmd":')
        rpc.send(b"\x94\x00")
        assert talk.read_line()["code"] == "timeout"
        assert rpc.read_message()[2]["code"] == "timeout"
        assert talk.is_closed()


def test_bytes_that_trickle_do_not_put_the_end_off(path: str) -> None:
    with Talk(path) as talk, Talk(path) as rpc:
        talk.send(b'{"cmd":"')
        rpc.send(b"\x94\x00\x01\xdb\x00\x00\x40\x00")
        dripping = gevent.spawn(drip, talk, rpc)
        with gevent.Timeout(20):
            assert talk.read_line()["code"] == "timeout"
            assert rpc.read_message()[2]["code"] == "timeout"
        dripping.kill()


def drip(*talks: Talk) -> None:
    """Send a byte more on each connection, much more often than the daemon's patience lasts, until it closes."""
    left = list(talks)
    while left:
        gevent.sleep(0.05)
        for talk in list(left):
            try:
                talk.send(b"x")
            except OSError:
                left.remove(talk)


def test_whole_messages_move_the_end_of_the_half_one_behind_them(path: str) -> None:
    request = b'{"cmd":"echo","name":"a"}\n'
    with Talk(path) as talk:
        talk.send(request[:9])
        for _ in range(20):  # each wait is a sixth of the daemon's patience, together they are three times as long
            gevent.sleep(0.05)
            talk.send(request[9:] + request[:9])
            assert talk.read_line()["ok"]


def test_a_follower_that_only_reads_is_not_timed_out(path: str, service: Service) -> None:
    with Talk(path) as talk:
        talk.send(b'{"cmd":"quiet"}\n')
        assert talk.read_line()["data"] == {"entry": 1}
        gevent.sleep(0.6)  # twice the daemon's patience with half a request
        service.gate.set()
        assert talk.read_line()["data"] == {"entry": 2}


def test_bytes_that_are_no_message_pack_close_the_connection(path: str) -> None:
    with Talk(path) as talk:
        talk.send(b"\x94\xc1")
        assert talk.read_message()[2]["code"] == "bad-request"
        assert talk.is_closed()
    with Talk(path) as talk:
        talk.send(b"\xdd\xff\xff\xff\xff")
        assert "longer than" in talk.read_message()[2]["message"]


def test_a_follower_that_never_reads_is_cut_off_and_others_are_served(path: str, service: Service) -> None:
    with Talk(path) as lazy, Talk(path) as talk:
        lazy.send(b'{"cmd":"flood"}\n')
        until(lambda: service.streams == 1)
        assert talk.ask(cmd="echo", name="a")["ok"]
        until(lambda: service.streams == 0)


def test_a_quiet_stream_ends_when_its_follower_leaves(path: str, service: Service) -> None:
    with Talk(path) as talk:
        assert talk.ask(cmd="quiet")["data"] == {"entry": 1}
        assert service.streams == 1
    until(lambda: service.streams == 0)


def test_what_a_refused_stream_holds_is_given_back(path: str, service: Service) -> None:
    with Talk(path) as talk:
        for number in range(MOST_STREAMS):
            assert talk.ask(cmd="quiet", id=number)["ok"]
        assert service.closed == 0
        assert talk.ask(cmd="quiet", id="one too many")["code"] == "busy"
        assert service.closed == 1
    until(lambda: service.closed == MOST_STREAMS + 1)


def test_a_command_comes_to_its_end_though_its_caller_has_left(path: str, service: Service) -> None:
    with Talk(path) as talk:
        talk.send(b'{"cmd":"slow","name":"a","id":1}\n{"cmd":"hear","name":"after"}\n')
        until(lambda: service.heard)
    service.gate.set()
    with Talk(path) as talk:
        assert talk.ask(cmd="echo", name="b")["ok"]


def test_a_half_closed_caller_still_gets_its_answer(path: str) -> None:
    with Talk(path) as talk:
        talk.send(b'{"cmd":"echo","name":"a"}\n')
        talk.socket.shutdown(socket.SHUT_WR)
        assert talk.read_line()["ok"]
        assert talk.is_closed()


def test_of_a_hundred_connections_the_surplus_is_told_busy(path: str) -> None:
    talks = [Talk(path) for _ in range(100)]
    try:
        replies = []
        for talk in talks:
            talk.send(b'{"cmd":"echo","name":"a"}\n')
        for talk in talks:
            replies.append(talk.read_line())
        assert sum(reply["ok"] for reply in replies) == MOST_CONNECTIONS
        assert {reply.get("code") for reply in replies if not reply["ok"]} == {"busy"}
    finally:
        for talk in talks:
            talk.socket.close()
    until(lambda: answers(path))
    assert KEPT_FOR_OPERATORS < MOST_CONNECTIONS


def answers(path: str) -> bool:
    with Talk(path) as talk:
        return bool(talk.ask(cmd="echo", name="a")["ok"])


def test_the_socket_comes_back_when_it_is_deleted(path: str) -> None:
    for _ in range(3):
        os.unlink(path)
        until(lambda: os.path.exists(path))
        assert answers(path)
    assert os.stat(path).st_mode & 0o777 == 0o666


def test_a_stale_socket_is_replaced(root: Path, service: Service) -> None:
    place = str(root / "agent.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(place)
    server = Server(place, service.commands(), owner_uid=os.geteuid())
    server.start()
    assert answers(place)
    server.stop()


def test_callers_of_the_moment_of_replacement_are_answered_by_the_next_image(root: Path, service: Service) -> None:
    place = str(root / "agent.sock")
    first = Server(place, service.commands(), owner_uid=os.geteuid())
    first.start()
    descriptor = first.detach()
    with Talk(place) as early:
        early.send(b'{"cmd":"echo","name":"a"}\n')
        second = Server(place, service.commands(), owner_uid=os.geteuid(), inherited_fd=descriptor)
        second.start()
        assert early.read_line()["ok"]
    second.stop()
