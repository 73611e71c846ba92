"""The browser login's callback takes the token of its own login, once, and nothing else."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from orionagent.errors import Timeout
from orionagent.wizard.login import (
    Callback,
    CallbackListener,
    browser_command,
    forwarding_line,
    is_page,
    judge,
    ssh_connection,
)

STATE = "6b5d3f10-8f5e-4f0e-9f6b-0d8a5a3b7c11"


@pytest.fixture
def listener() -> Iterator[CallbackListener]:
    with CallbackListener(0) as found:
        yield found


def browse(port: int, path: str, *, host: str = "localhost", address: str = "127.0.0.1") -> bytes:
    """Make one request as a browser does; return the whole answer."""
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def status_line(answer: bytes) -> bytes:
    return answer.partition(b"\r\n")[0]


def test_the_token_that_the_browser_brings_is_taken(listener: CallbackListener) -> None:
    visit = gevent.spawn(browse, listener.port, f"/callback?token=abc&state={STATE}")
    assert listener.wait(STATE, 20) == Callback("abc", True)
    answer = visit.get(timeout=20)
    assert status_line(answer) == b"HTTP/1.1 200 OK"
    assert b"Cache-Control: no-store" in answer
    assert b"abc" not in answer


def test_a_callback_without_state_is_taken_but_not_vouched_for(listener: CallbackListener) -> None:
    gevent.spawn(browse, listener.port, "/callback?token=abc")
    assert listener.wait(STATE, 20) == Callback("abc", False)


def test_wrong_callbacks_are_refused_and_the_wait_goes_on(listener: CallbackListener) -> None:
    waiting = gevent.spawn(listener.wait, STATE, 20)
    port = listener.port
    assert status_line(browse(port, "/callback?token=evil&state=other")) == b"HTTP/1.1 400 Bad Request"
    assert status_line(browse(port, f"/callback?state={STATE}")) == b"HTTP/1.1 400 Bad Request"
    assert status_line(browse(port, "/favicon.ico")) == b"HTTP/1.1 404 Not Found"
    assert status_line(browse(port, "/callback?token=evil", host="evil.example")) == b"HTTP/1.1 400 Bad Request"
    assert status_line(browse(port, f"/callback?token=good&state={STATE}")) == b"HTTP/1.1 200 OK"
    assert waiting.get(timeout=20) == Callback("good", True)


def test_a_replayed_callback_finds_nobody(listener: CallbackListener) -> None:
    with listener:
        gevent.spawn(browse, listener.port, f"/callback?token=abc&state={STATE}")
        listener.wait(STATE, 20)
    with pytest.raises(ConnectionRefusedError):
        browse(listener.port, f"/callback?token=abc&state={STATE}")


def test_a_client_that_says_nothing_does_not_stop_the_login(listener: CallbackListener) -> None:
    with socket.create_connection(("127.0.0.1", listener.port)):
        visit = gevent.spawn(browse, listener.port, f"/callback?token=abc&state={STATE}")
        assert listener.wait(STATE, 20).token == "abc"
        visit.get(timeout=20)


def test_a_port_that_is_taken_is_replaced_by_a_free_one(listener: CallbackListener) -> None:
    with CallbackListener(listener.port) as second:
        assert second.port != listener.port
        gevent.spawn(browse, second.port, "/callback?token=abc")
        assert second.wait(STATE, 20).token == "abc"


def test_a_login_that_nobody_confirms_ends_with_a_clear_error(listener: CallbackListener) -> None:
    with pytest.raises(Timeout, match="nobody confirmed in the browser"):
        listener.wait(STATE, 0.05)


def test_both_loopback_addresses_answer(listener: CallbackListener) -> None:
    if not Path("/proc/net/if_inet6").exists() or "lo" not in Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6 here")
    gevent.spawn(browse, listener.port, "/callback?token=abc", address="::1")
    assert listener.wait(STATE, 20).token == "abc"


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "\r\n\r\n",
        "POST /callback?token=a HTTP/1.1\r\nHost: localhost:7\r\n\r\n",
        "GET /callback?token=a HTTP/1.1\r\n\r\n",
        "GET /callback?token=a HTTP/1.1\r\nHost: localhost:8\r\n\r\n",
        "GET /callback?token=a HTTP/1.1\r\nHost: localhost:7\r\nHost: evil:7\r\n\r\n",
        "GET /callback?token=a&token=b HTTP/1.1\r\nHost: localhost:7\r\n\r\n",
        "GET /callback?token=a%20b HTTP/1.1\r\nHost: localhost:7\r\n\r\n",
        f"GET /callback?token=a&state={STATE}&state=x HTTP/1.1\r\nHost: localhost:7\r\n\r\n",
        "GET /callback?token=a&state=%C3%BC HTTP/1.1\r\nHost: localhost:7\r\n\r\n",
        "GET /callback/x?token=a HTTP/1.1\r\nHost: localhost:7\r\n\r\n",
    ],
)
def test_odd_requests_bring_no_token(request_text: str) -> None:
    assert judge(request_text, 7, STATE)[2] is None


def test_a_browser_is_opened_only_where_there_is_one_and_never_as_root() -> None:
    assert browser_command({"BROWSER": "firefox:w3m"}, 1000) == ["firefox"]
    assert browser_command({"DISPLAY": ":0", "PATH": "/nowhere"}, 1000) is None
    assert browser_command({"PATH": "/usr/bin"}, 1000) is None
    assert browser_command({"DISPLAY": ":0", "PATH": "/usr/bin"}, 0) is None


def test_over_ssh_the_line_to_type_is_named() -> None:
    line = "ssh -L 7777:127.0.0.1:7777 ann@"
    assert forwarding_line("10.0.0.2 5000 203.0.113.9 22", 7777, "ann", "web1") == f"{line}203.0.113.9"
    assert forwarding_line(None, 7777, "ann", "web1") == f"{line}web1"
    assert (
        forwarding_line("::2 5000 2001:db8::1 2222", 7, "ann", "web1") == "ssh -p 2222 -L 7:127.0.0.1:7 ann@2001:db8::1"
    )


def test_ssh_is_recognised_behind_sudo_which_clears_the_environment() -> None:
    far = "10.0.0.2 5000 203.0.113.9 22"
    assert ssh_connection({"SSH_CONNECTION": far}) == far
    # A shell with the variable starts one without it, as sudo does, and stays.
    with subprocess.Popen(
        ["sh", "-c", "env -i sh -c 'echo $$; read line'; true"],
        env={"PATH": os.environ["PATH"], "SSH_CONNECTION": far}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as shells:  # fmt: skip
        assert shells.stdout is not None
        pid = int(shells.stdout.readline())
        found = ssh_connection({}, pid)
        shells.communicate(b"")
    assert found == far
    assert ssh_connection({}, 1) is None


@pytest.mark.parametrize(
    ("url", "good"),
    [("https://x/auth", True), ("http://localhost:3000/a", True), ("file:///etc", False), ("https://x/\x1b[2J", False)],
)
def test_only_web_pages_are_opened(url: str, good: bool) -> None:
    assert is_page(url) is good
