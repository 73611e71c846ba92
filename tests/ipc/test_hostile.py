"""Callers that mean harm or know no better: each gets an error or is cut off, and the daemon goes on."""

import os
import random
import socket
from pathlib import Path

import gevent
import msgpack
import pytest

from orionagent.errors import AlreadyRunning, OrionError
from orionagent.ipc.server import Server
from orionagent.paths import Paths
from tests.ipc.stand_ins import Fixture, make_entry, serving
from tests.ipc.talk import Talk

MESSAGES = 10_000
SEEDS = (
    b'{"cmd":"script:start","name":"api-backend","id":1}',
    b'{"cmd":"log","level":"info","message":"x"}',
    b'{"cmd":"logs:tail","lines":3}',
    b'{"cmd":"status","id":"s"}',
)


def until(condition: object) -> None:
    assert callable(condition)
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.01)


def mangle(seed: bytes, draw: random.Random) -> bytes:
    """Return a message with a few bytes flipped, cut out or doubled, on one line."""
    message = bytearray(seed)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(message))
        match draw.randrange(3):
            case 0:
                message[at] = draw.randrange(256)
            case 1:
                del message[at : at + draw.randint(1, 5)]
            case _:
                message[at:at] = message[at : at + draw.randint(1, 9)]
        message = message or bytearray(b"?")
    return bytes(message).replace(b"\n", b" ").strip() or b"?"


def test_each_of_many_mangled_lines_is_answered(paths: Paths) -> None:
    draw = random.Random(7)
    lines = [mangle(SEEDS[number % len(SEEDS)], draw) for number in range(MESSAGES)]
    # A "notify" or a "follow" may come out of no mangling of these, so that every line has one answer.
    with serving(paths) as fixture, fixture.connect() as talk:
        talk.send(b'{"cmd":"ping"}\n')  # chooses the framing
        sender = gevent.spawn(talk.send, b"\n".join(lines) + b"\n")
        answers = [talk.read_line() for _ in range(MESSAGES + 1)]
        sender.join()
        assert talk.ask(cmd="ping")["ok"]
    codes = {answer.get("code", "ok") for answer in answers}
    assert codes <= {"ok", "bad-request", "not-found"}
    assert sum(answer.get("code") == "bad-request" for answer in answers) > MESSAGES / 2


def test_mangled_message_pack_gets_an_error_or_a_closed_connection(paths: Paths) -> None:
    draw = random.Random(11)
    seeds = [msgpack.packb([0, 7, "script:start", ["api-backend"]]), msgpack.packb([0, 8, "logs:tail", [{"lines": 2}]])]
    with serving(paths) as fixture:
        for number in range(500):
            message = bytearray(seeds[number % 2])
            message[draw.randrange(1, len(message))] = draw.randrange(256)
            with fixture.connect() as talk:
                # What is announced and never comes is half a message: the sending half's end tells the daemon.
                talk.send(bytes(message) + msgpack.packb([0, 1, "ping", []]))
                talk.socket.shutdown(socket.SHUT_WR)
                assert talk.is_closed()
        with fixture.connect() as talk:
            assert talk.ask_rpc(1, "ping", [])[3]["pong"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"cmd":"ping","id":1' + b"0" * 40 + b"}",
        b'{"cmd":"ping","id":1.5}',
        b'{"cmd":"ping","id":[]}',
        b'{"cmd":"script:start","name":"\\ud800"}',
        b'{"cmd":"\\ud800"}',
        b'{"cmd":"log","level":"\\u001b[31m","message":"x"}',
        b'{"cmd":"log","level":"info","message":"x","metadata":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"cmd":"logs:tail","lines":' + b"9" * 5000 + b"}",
        b'{"cmd":"ping","' + b"f" * 100_000 + b'":1}',
    ],
    ids=lambda line: ascii(line[:40]),
)
def test_a_strange_value_gets_a_short_printable_answer_and_the_connection_goes_on(line: bytes, paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        talk.send(line + b"\n")
        answer = talk.read_line()
        assert talk.ask(cmd="ping")["ok"]
    if not answer["ok"]:
        assert answer["code"] in ("bad-request", "not-found")
        assert len(answer["error"]) < 600
        assert "\x1b" not in answer["error"]


def test_a_bad_line_is_answered_in_its_turn(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        fixture.scripts.gate.clear()
        talk.send(b'{"cmd":"script:stop","name":"api-backend"}\nnonsense\n{"cmd":"ping","id":1}\n')
        assert talk.read_line()["id"] == 1
        fixture.scripts.gate.set()
        assert [talk.read_line().get("code", "ok") for _ in range(2)] == ["ok", "bad-request"]


def test_callers_that_leave_in_the_middle_of_a_long_answer_leave_nothing_behind(paths: Paths) -> None:
    with serving(paths) as fixture:
        fixture.entries.past = [make_entry(number, "x" * 1000) for number in range(2000)]
        for _ in range(50):
            with fixture.connect() as talk:
                talk.send(b'{"cmd":"logs:tail","lines":2000}\n')
                talk.socket.recv(10)
        with fixture.connect() as talk:
            assert len(talk.ask(cmd="logs:tail", lines=2000)["data"]["entries"]) == 2000


def test_a_follower_that_never_reads_is_cut_off_and_its_follower_closed(paths: Paths) -> None:
    with serving(paths, send_timeout_s=0.2) as fixture, fixture.connect() as lazy, fixture.connect() as talk:
        lazy.send(b'{"cmd":"logs:tail","follow":true}\n')
        until(lambda: fixture.entries.followers)
        (follower,) = fixture.entries.followers
        number = 0
        with gevent.Timeout(20):
            while not follower.closed.is_set():
                follower.put(make_entry(number, "x" * 10_000))
                number += 1
                gevent.sleep(0)
        assert talk.ask(cmd="ping")["ok"]


def test_a_thousand_connections_in_a_row_are_all_served(paths: Paths) -> None:
    with serving(paths) as fixture:
        for _ in range(1000):
            with fixture.connect() as talk:
                assert talk.ask(cmd="ping")["ok"]


def test_calls_under_way_are_answered_before_the_program_is_replaced(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        fixture.scripts.gate.clear()
        talk.send(b'{"cmd":"script:stop","name":"api-backend"}\n')
        until(lambda: fixture.scripts.waiting)
        detaching = gevent.spawn(fixture.server.detach)
        gevent.sleep(0)
        fixture.scripts.gate.set()
        assert talk.read_line()["ok"]
        assert talk.is_closed()
        os.close(detaching.get(timeout=20))
        assert os.path.exists(fixture.path)


def test_a_call_that_does_not_end_holds_no_replacement_up(paths: Paths) -> None:
    with serving(paths) as fixture, fixture.connect() as talk:
        fixture.scripts.gate.clear()
        talk.send(b'{"cmd":"script:stop","name":"api-backend"}\n')
        until(lambda: fixture.scripts.waiting)
        os.close(fixture.server.detach(timeout_s=0.1))
        assert talk.is_closed()


def test_the_socket_comes_back_with_its_folder(paths: Paths) -> None:
    with serving(paths) as fixture:
        os.rename(paths.run, f"{paths.run}-moved")
        until(lambda: os.path.exists(fixture.path))
        assert os.stat(paths.run).st_mode & 0o777 == 0o755
        assert os.stat(fixture.path).st_mode & 0o777 == 0o666
        with fixture.connect() as talk:
            assert talk.ask(cmd="ping")["ok"]
        os.unlink(fixture.path)
        until(lambda: os.path.exists(fixture.path))


def test_a_path_where_somebody_answers_is_left_alone(paths: Paths) -> None:
    with serving(paths) as fixture:
        with pytest.raises(AlreadyRunning, match="another daemon answers"):
            Fixture(paths).server.start()
        with fixture.connect() as talk:
            assert talk.ask(cmd="ping")["ok"]


def test_a_file_in_the_socket_s_place_is_not_overwritten(paths: Paths) -> None:
    Path(paths.socket).write_text("precious", encoding="utf-8")
    with pytest.raises(OrionError, match="not a socket; move it away"):
        Fixture(paths).server.start()
    assert Path(paths.socket).read_text(encoding="utf-8") == "precious"


def test_a_path_too_long_for_a_socket_is_named_with_its_remedy(root: Path) -> None:
    folder = root / ("d" * 100)
    folder.mkdir()
    with pytest.raises(OrionError, match="shorter ORION_ROOT"):
        Server(str(folder / "agent.sock"), {}, owner_uid=0).start()


def test_an_inherited_descriptor_that_is_no_listening_socket_is_not_served(paths: Paths) -> None:
    reading, writing = os.pipe()
    with serving(paths, inherited_fd=reading) as fixture, fixture.connect() as talk:
        assert talk.ask(cmd="ping")["ok"]
    os.close(writing)


def test_an_inherited_socket_whose_name_is_gone_gets_a_new_one(paths: Paths) -> None:
    first = Fixture(paths)
    first.server.start()
    descriptor = first.server.detach()
    os.unlink(paths.socket)
    with serving(paths, inherited_fd=descriptor), Talk(paths.socket) as talk:
        assert talk.ask(cmd="ping")["ok"]
