"""Owns the command line's side of the Unix socket: one request line out, reply lines in, errors translated.

Must not know what the commands mean; imports `_socket` and `json` only (no gevent, no msgspec): this is the
command line's start-up time.
"""

import _socket
import json
from collections.abc import Iterator
from typing import Any

from orionagent.errors import NotPermitted, NotRunning, OrionError, Timeout

CONNECT_TIMEOUT_S = 10.0


def call(socket_path: str, cmd: str, *, timeout_s: float | None = None, **params: object) -> Any:
    """Ask the daemon and return its reply's `data`.

    Blocks until the reply is there, at most `timeout_s` between two pieces of it; None waits for ever, as
    stopping a script may take its whole stop timeout.

    Raises:
        NotRunning: nobody answers on the socket, or the daemon ended before its reply.
        NotPermitted: the socket cannot be opened by this user.
        Timeout: `timeout_s` passed.
        OrionError: the daemon refused; `code` is the reply's.
    """
    connection = _connect(socket_path)
    try:
        connection.settimeout(timeout_s)
        for line in _exchange(connection, cmd, params):
            return _data(line)
    except TimeoutError:
        raise Timeout(f"cannot {cmd}: the daemon gave no answer within {timeout_s:g} s") from None
    finally:
        connection.close()
    raise NotRunning(f"cannot {cmd}: the daemon ended before it answered")


def stream(socket_path: str, cmd: str, **params: object) -> Iterator[Any]:
    """Yield the `data` of each reply until the daemon closes the connection; blocks between replies.

    Raises: as `call`.
    """
    connection = _connect(socket_path)
    try:
        connection.settimeout(None)
        for line in _exchange(connection, cmd, params):
            yield _data(line)
    finally:
        connection.close()


def _connect(socket_path: str) -> _socket.socket:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(socket_path)
    except PermissionError:
        connection.close()
        raise NotPermitted(f"cannot open {socket_path}: permission denied; use sudo") from None
    except (FileNotFoundError, NotADirectoryError):
        connection.close()
        raise NotRunning(f"the daemon is not running: no socket at {socket_path}") from None
    except ConnectionRefusedError:
        connection.close()
        raise NotRunning(f"the daemon is not running: nobody answers at {socket_path}") from None
    except TimeoutError:
        connection.close()
        raise Timeout(f"cannot reach the daemon: {socket_path} takes no connection") from None
    except OSError as error:
        connection.close()
        raise OrionError(f"cannot reach the daemon: {socket_path}: {error.strerror or error}") from None
    return connection


def _exchange(connection: _socket.socket, cmd: str, params: dict[str, object]) -> Iterator[bytes]:
    """Send the request and yield reply lines until the peer closes."""
    pending = b""
    try:
        connection.sendall(json.dumps({"cmd": cmd, **params}).encode() + b"\n")
        while chunk := connection.recv(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            yield from lines
    except (BrokenPipeError, ConnectionResetError):
        return


def _data(line: bytes) -> Any:
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise OrionError("cannot read the daemon's reply: it is no JSON object; is its version another one?")
    if reply.get("ok") is not True:
        message = str(reply.get("error") or "the daemon refused without a reason")
        raise OrionError(message, code=str(reply.get("code") or "failed"))
    return reply.get("data")
