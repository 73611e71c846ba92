"""The blocking caller against a real server (in a thread of its own: it does not yield), and against broken ones."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest

from orionagent.errors import Busy, Exists, NotFound, NotPermitted, NotRunning, OrionError, Timeout
from orionagent.ipc import client
from orionagent.ipc.server import MOST_CONNECTIONS
from orionagent.paths import Paths
from tests.ipc.stand_ins import make_entry, serving

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEXTS = ("plain", "Grüße, 世界 🚀", 'quotes " and \\ and \n and \x00 and \x1b', "x" * 300_000, "")


def in_thread(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a blocking function while the server's greenlets go on; raise what it raises."""
    return gevent.get_hub().threadpool.apply(function, args, options)


@contextmanager
def answering(path: str, answer: bytes | None) -> Iterator[None]:
    """Serve one caller at `path`: read its request, send `answer` (None: never) and close."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    held: list[socket.socket] = []

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        held.append(connection)
        if answer is not None:
            connection.sendall(answer)
            connection.close()

    server = gevent.spawn(serve)
    try:
        yield
    finally:
        server.kill()
        for connection in held:
            connection.close()
        listener.close()


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:10]))
def test_any_text_survives_the_way_there_and_back(text: str, paths: Paths) -> None:
    with serving(paths) as fixture:
        fixture.entries.past = [make_entry(1, text)]
        data = in_thread(client.call, paths.socket, "logs:tail", lines=1)
        in_thread(
            client.call, paths.socket, "log", level="info", message=text[:60_000], metadata={"t": [text[:9], 1.5]}
        )
        (batch,) = fixture.entries.batches
    assert data["entries"][0]["message"] == text
    assert batch.messages == [text[:60_000]]
    assert batch.extras[0].metadata == {"t": [text[:9], 1.5]}


def test_parameters_that_are_none_are_left_out(paths: Paths) -> None:
    with serving(paths):
        assert in_thread(client.call, paths.socket, "ping", whatever=None)["pong"]


@pytest.mark.parametrize(
    ("cmd", "params", "kind", "words"),
    [
        ("script:start", {"name": "x"}, NotFound, "Script not found: x"),
        ("script:add", {"name": "api-backend", "command": "x", "cwd": "/"}, Exists, "there is a script"),
        ("script:start", {}, OrionError, "no name given"),
    ],
)
def test_a_refusal_comes_as_the_error_of_its_code(
    cmd: str, params: dict[str, Any], kind: type[OrionError], words: str, paths: Paths
) -> None:
    with serving(paths), pytest.raises(kind, match=words):
        in_thread(client.call, paths.socket, cmd, **params)


def test_a_full_daemon_is_busy(paths: Paths) -> None:
    with serving(paths) as fixture:
        talks = [fixture.connect() for _ in range(MOST_CONNECTIONS)]
        assert all(talk.ask(cmd="ping")["ok"] for talk in talks)
        with pytest.raises(Busy, match="connections are open"):
            in_thread(client.call, paths.socket, "ping")
        for talk in talks:
            talk.socket.close()


def test_without_a_daemon_the_caller_learns_how_to_start_it(paths: Paths) -> None:
    with pytest.raises(NotRunning, match=r"no socket at .*; start it: systemctl start orion-agent"):
        client.call(paths.socket, "ping")


def test_a_socket_that_a_dead_daemon_left_is_no_daemon(paths: Paths) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(paths.socket)
    with pytest.raises(NotRunning, match="nobody answers"):
        client.call(paths.socket, "ping")
    os.unlink(paths.socket)


def test_a_daemon_that_does_not_answer_is_waited_for_until_the_deadline(paths: Paths) -> None:
    with answering(paths.socket, None), pytest.raises(Timeout, match="no answer in time"):
        in_thread(client.call, paths.socket, "status", timeout_s=0.2)


@pytest.mark.parametrize("answer", [b"", b'{"ok":true,"da'])
def test_a_daemon_that_ends_before_its_answer_is_not_taken_for_success(answer: bytes, paths: Paths) -> None:
    with answering(paths.socket, answer), pytest.raises(NotRunning, match="ended before it answered"):
        in_thread(client.call, paths.socket, "script:stop", name="a")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"[]\n", b"\xff\xfe\n", b"nul\n", b"{\n", b"\n"])
def test_whatever_else_answers_on_the_path_is_no_daemon_of_ours(answer: bytes, paths: Paths) -> None:
    with answering(paths.socket, answer), pytest.raises(OrionError, match="does not speak our protocol"):
        in_thread(client.call, paths.socket, "ping")


def test_a_refusal_of_an_unknown_kind_keeps_its_code(paths: Paths) -> None:
    answer = json.dumps({"ok": False, "error": "cannot: the moon", "code": "lunar"}).encode() + b"\n"
    with answering(paths.socket, answer), pytest.raises(OrionError) as caught:
        in_thread(client.call, paths.socket, "ping")
    assert (caught.value.code, caught.value.message) == ("lunar", "cannot: the moon")


def test_a_stream_yields_until_it_is_closed(paths: Paths) -> None:
    def read_three() -> list[str]:
        entries = client.stream(paths.socket, "logs:tail", follow=True)
        messages = [next(entries)["entry"]["message"] for _ in range(3)]
        entries.close()  # type: ignore[attr-defined]
        return messages

    def feed() -> None:
        with gevent.Timeout(20):
            while not fixture.entries.followers:
                gevent.sleep(0.01)
        for number in (1, 2):
            fixture.entries.followers[0].put(make_entry(number, f"line {number}"))

    with serving(paths) as fixture:
        feeder = gevent.spawn(feed)
        assert in_thread(read_three) == ["ready", "line 1", "line 2"]
        feeder.join()
        assert fixture.entries.followers[0].closed.wait(20)


def test_a_stream_ends_with_the_daemon(paths: Paths) -> None:
    with answering(paths.socket, b'{"ok":true,"data":{"entry":1}}\n{"ok":true,"data":{"entry":2}}\n'):
        assert in_thread(lambda: list(client.stream(paths.socket, "logs:tail", follow=True))) == [
            {"entry": 1},
            {"entry": 2},
        ]


def test_a_caller_waits_in_the_queue_of_a_daemon_that_is_being_replaced(paths: Paths) -> None:
    """A listener that nobody accepts on and whose queue is full: what the moment of a re-exec can look like."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(paths.socket)
    listener.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(paths.socket)

    def accept_at_last() -> None:
        gevent.sleep(0.2)  # so that the caller finds the queue full; the answer is the same if it does not
        first, _ = listener.accept()
        second, _ = listener.accept()
        second.recv(65536)
        second.sendall(b'{"ok":true,"data":{"pong":true}}\n')
        for connection in (first, second):
            connection.close()

    server = gevent.spawn(accept_at_last)
    assert in_thread(client.call, paths.socket, "ping") == {"pong": True}
    server.join()
    waiting.close()
    listener.close()


def test_a_socket_that_this_user_may_not_open_is_named(paths: Paths) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    program = (
        "import os, sys\n"
        "from orionagent.ipc import client\n"
        "from orionagent.errors import NotPermitted\n"
        "os.setuid(65534)\n"
        "try:\n    client.call(sys.argv[1], 'ping')\n"
        "except NotPermitted as error:\n    print(error.message)\n"
    )
    with serving(paths):
        os.chmod(paths.root, 0o700)
        done = in_thread(
            subprocess.run, [sys.executable, "-c", program, paths.socket], capture_output=True, text=True, timeout=60
        )
    assert "permission denied; use sudo" in done.stdout
    assert NotPermitted.code == "not-permitted"


def test_the_client_costs_neither_json_nor_socket_nor_any_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import orionagent.ipc.client;print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("orionagent")}
    assert loaded <= {"_json", "_socket", "time"}
