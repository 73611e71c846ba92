"""Owns the browser login: the page that is opened, and the callback on loopback that brings the token.

Must not know what the token is for. The callback is that of the setup command line's contract:
GET http://localhost:PORT/callback?token=...; a `state` in it must be the login's own.
"""

import hmac
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from orionagent.errors import OrionError, Timeout

USUAL_PORT = 7777
WAIT_S = 300.0
REQUEST_TIMEOUT_S = 2.0
REQUEST_BYTES = 16384
TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
PAGE = """<!doctype html><meta charset="utf-8"><title>Orion</title>
<script>history.replaceState(null, "", "/")</script><p style="font: 1.2em sans-serif; margin: 3em">{}</p>"""


class Callback(NamedTuple):
    """The token that a browser brought; `vouched` says that the login's own state came with it."""

    token: str
    vouched: bool


class CallbackListener:
    """The loopback port that a login's answer comes to. Use as a context manager: it is closed behind the first."""

    def __init__(self, port: int = USUAL_PORT) -> None:
        self._sockets = [_listen(socket.AF_INET, "127.0.0.1", port) or _must_listen()]
        self.port: int = self._sockets[0].getsockname()[1]
        # Browsers may try ::1 first for "localhost"; where it is not to be had they go on to 127.0.0.1.
        second = _listen(socket.AF_INET6, "::1", self.port)
        if second is not None:
            self._sockets.append(second)

    def __enter__(self) -> "CallbackListener":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    def wait(self, state: str, timeout_s: float = WAIT_S) -> Callback:
        """Answer requests until one brings a token for this login; blocks for at most `timeout_s`.

        Raises:
            Timeout: nobody confirmed.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(self._sockets, [], [], left_s)
            for listener in ready:
                connection, _ = listener.accept()
                with connection:
                    found = self._serve(connection, state)
                if found is not None:
                    return found
        raise Timeout(
            f"cannot sign in: nobody confirmed in the browser within {timeout_s / 60:g} minutes; "
            "run the set-up again, or use --token"
        )

    def _serve(self, connection: socket.socket, state: str) -> Callback | None:
        try:
            request = _read_request(connection)
            status, text, found = judge(request, self.port, state)
            body = PAGE.format(text).encode()
            head = (
                f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
                "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
        except OSError:
            return None
        return found


def judge(request: str, port: int, state: str) -> tuple[str, str, Callback | None]:
    """Return the answer to a request (status line, sentence) and the token where it brings one."""
    head, _, rest = request.partition("\r\n")
    words = head.split(" ")
    hosts = re.findall(r"(?im)^host:[ \t]*(\S+)[ \t]*\r?$", rest)
    if len(words) != 3 or words[0] != "GET" or not words[2].startswith("HTTP/"):
        return "400 Bad Request", "This is no request of a browser login.", None
    # A name of somebody else's that leads to loopback must not get at the listener.
    if hosts not in ([f"localhost:{port}"], [f"127.0.0.1:{port}"], [f"[::1]:{port}"]):
        return "400 Bad Request", "This page is for this computer only.", None
    url = urlsplit(words[1])
    if url.path != "/callback":
        return "404 Not Found", "There is nothing here.", None
    query = parse_qs(url.query)
    tokens, states = query.get("token", []), query.get("state", [])
    if len(tokens) != 1 or not TOKEN.fullmatch(tokens[0]):
        return "400 Bad Request", "The callback brought no token. Run the set-up again.", None
    if states and not all(hmac.compare_digest(each.encode(), state.encode()) for each in states):
        return "400 Bad Request", "This callback belongs to another login.", None
    return "200 OK", "You are signed in. Go back to your terminal.", Callback(tokens[0], bool(states))


def _read_request(connection: socket.socket) -> str:
    connection.settimeout(REQUEST_TIMEOUT_S)
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    data = b""
    while b"\r\n\r\n" not in data and len(data) < REQUEST_BYTES and time.monotonic() < deadline:
        chunk = connection.recv(4096)
        if not chunk:
            break
        data += chunk
    return data.decode("latin-1")


def _listen(family: int, host: str, port: int) -> socket.socket | None:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(8)
    except OSError:
        listener.close()
        return None
    return listener


def _must_listen() -> socket.socket:
    """Listen on any free port: the usual one is taken."""
    listener = _listen(socket.AF_INET, "127.0.0.1", 0)
    if listener is None:
        raise OrionError("cannot wait for the browser: no port on 127.0.0.1 is to be had; use --token")
    return listener


def browser_command(environment: Mapping[str, str], uid: int) -> list[str] | None:
    """Return the program that opens a page for this person, None where there is none (or it would run as root)."""
    named = environment.get("BROWSER", "").split(":")[0]
    if named:
        return [named]
    has_display = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    opener = shutil.which("xdg-open", path=environment.get("PATH"))
    return [opener] if has_display and opener and uid != 0 else None


def open_page(command: list[str], url: str) -> None:
    """Start the browser without waiting for it; a browser that does not start is no failure: the URL is printed."""
    quiet = subprocess.DEVNULL
    try:
        subprocess.Popen([*command, url], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return


def ssh_connection(environment: Mapping[str, str], pid: int | None = None) -> str | None:
    """Return what SSH_CONNECTION says of this terminal, None where it is local.

    sudo and `su -` take the variable out of the environment: it is looked for in the processes above, too.
    """
    if environment.get("SSH_CONNECTION"):
        return environment["SSH_CONNECTION"]
    pid = os.getppid() if pid is None else pid
    while pid > 1:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                found = re.search(rb"(?:^|\0)SSH_CONNECTION=([^\0]+)", file.read())
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return None  # somebody else's, or gone: there is nothing more to be known
        if found is not None:
            return found[1].decode("ascii", "replace")
    return None


def forwarding_line(connection: str | None, port: int, user: str, hostname: str) -> str:
    """Return what to type on one's own computer so that its browser reaches this one's port."""
    ends = (connection or "").split(" ")
    server, ssh_port = ends[2:4] if len(ends) == 4 else (hostname, "22")
    other_port = "" if ssh_port == "22" else f"-p {ssh_port} "
    return f"ssh {other_port}-L {port}:127.0.0.1:{port} {user}@{server}"


def is_page(url: str) -> bool:
    """Tell whether a URL may be shown and opened."""
    return urlsplit(url).scheme in ("http", "https") and url.isprintable() and " " not in url and os.sep in url
