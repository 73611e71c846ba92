"""Owns the caller's side of the socket: one JSON line out, one or many back, blocking.

Must not know gevent, msgspec, `socket` or `json`: this is the command line's start-up time, so it keeps to
C modules (`_socket`, `_json`) and `orionagent.errors`.
"""

import _socket
import time
from _json import encode_basestring_ascii, make_encoder, make_scanner

from orionagent import errors

TYPE_CHECKING = False  # `typing` costs 12 ms; type checkers know this name
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

READ_BYTES = 65536
CONNECT_TIMEOUT_S = 10.0
FOREVER_S = float("inf")
START = "start it: systemctl start orion-agent (or: orion daemon)"

_KINDS = {
    kind.code: kind
    for kind in (
        errors.BadRequest,
        errors.NotFound,
        errors.Exists,
        errors.NotPermitted,
        errors.Busy,
        errors.Timeout,
        errors.ConfigError,
        errors.SpawnError,
        errors.BufferUnusable,
    )
}


class _ScannerContext:
    """What `_json`'s scanner asks for; the values are those of `json.JSONDecoder()`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _refuse_value(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not a JSON value")


_scan = make_scanner(_ScannerContext)  # type: ignore[arg-type]
_encode = make_encoder(None, _refuse_value, encode_basestring_ascii, None, ":", ",", False, False, False)


def call(socket_path: str, cmd: str, /, *, timeout_s: "float | None" = None, **params: "Any") -> "Any":
    """Run a command of docs/ipc.md and return its `data`; parameters that are None are left out.

    Blocks until the answer is there, at most `timeout_s` in all; None waits as long as the daemon lives, for
    stopping a script may take its whole stop timeout. The connect alone is bounded by CONNECT_TIMEOUT_S.

    Raises:
        NotRunning: no daemon answers, or it ended before it did; the message says how to start it.
        NotPermitted: this user may not.
        Timeout: no answer in time; the command may have been carried out all the same.
        OrionError: what the daemon refused with, by its kind.
    """
    deadline = FOREVER_S if timeout_s is None else time.monotonic() + timeout_s
    for data in _exchange(socket_path, cmd, params, deadline):
        return data
    raise _cut_off(cmd)


def stream(socket_path: str, cmd: str, /, **params: "Any") -> "Iterator[Any]":
    """Run a command that answers many times; yield each `data` until the stream or the daemon ends.

    Blocks between replies without limit; closing the iterator ends the stream. Raises what `call` raises,
    but once the first reply is there the daemon's end is the stream's end, no error.
    """
    return _exchange(socket_path, cmd, params, FOREVER_S)


def _exchange(path: str, cmd: str, params: "dict[str, Any]", deadline: float) -> "Iterator[Any]":
    """Yield the `data` of every reply until the daemon closes."""
    fields = {"cmd": cmd, **{name: value for name, value in params.items() if value is not None}}
    request = "".join(_encode(fields, 0)).encode() + b"\n"
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        _connect(connection, path, min(deadline, time.monotonic() + CONNECT_TIMEOUT_S))
        try:
            _set_deadline(connection, deadline)
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Turned away before it was read: the reason is there to be read.
        answered = False
        for line in _read_lines(connection, deadline):
            reply = _read_reply(cmd, line)
            answered = True
            yield reply.get("data")
        if not answered:
            raise _cut_off(cmd)
    except TimeoutError:
        raise errors.Timeout(f"cannot tell how {cmd} went: no answer in time; see `orion status`") from None
    finally:
        connection.close()


def _read_lines(connection: _socket.socket, deadline: float) -> "Iterator[str]":
    """Yield whole lines until the daemon closes; raises TimeoutError at the deadline."""
    buffer = bytearray()
    while True:
        _set_deadline(connection, deadline)
        try:
            chunk = connection.recv(READ_BYTES)
        except ConnectionResetError:
            return
        if not chunk:
            return
        start = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", start)) >= 0:
            line = buffer[:end].decode("utf-8", "replace")
            del buffer[: end + 1]
            start = 0
            yield line


def _connect(connection: _socket.socket, path: str, deadline: float) -> None:
    try:
        _set_deadline(connection, deadline)
        try:
            connection.connect(path)
        except BlockingIOError:
            # A full backlog (the daemon is being replaced): only a blocking connect waits in that queue.
            _connect_blocking(connection, path, deadline)
    except TimeoutError:
        raise
    except PermissionError:
        raise errors.NotPermitted(f"cannot open {path}: permission denied; use sudo") from None
    except (FileNotFoundError, NotADirectoryError):
        raise errors.NotRunning(f"the daemon is not running: no socket at {path}; {START}") from None
    except ConnectionRefusedError:
        raise errors.NotRunning(f"the daemon is not running: nobody answers at {path}; {START}") from None
    except OSError as error:
        raise errors.OrionError(f"cannot reach the daemon: {path}: {error.strerror or error}") from None


def _connect_blocking(connection: _socket.socket, path: str, deadline: float) -> None:
    from _struct import pack  # noqa: PLC0415 - rarely needed

    left_s = max(0.001, deadline - time.monotonic())
    bound = pack("@ll", int(left_s), int(left_s % 1 * 1e6))
    connection.settimeout(None)
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, bound)
    try:
        connection.connect(path)
    except BlockingIOError:
        raise TimeoutError from None


def _set_deadline(connection: _socket.socket, deadline: float) -> None:
    if deadline == FOREVER_S:
        connection.settimeout(None)
        return
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    connection.settimeout(left_s)


def _read_reply(cmd: str, line: str) -> "dict[str, Any]":
    try:
        reply, _ = _scan(line, 0)
    except (ValueError, StopIteration):
        reply = None
    if not isinstance(reply, dict):
        raise errors.OrionError(f"cannot run {cmd}: what answers on the socket does not speak our protocol")
    if reply.get("ok") is True:
        return reply
    message, code = reply.get("error"), reply.get("code")
    message = message if isinstance(message, str) else f"cannot run {cmd}: refused without a reason"
    code = code if isinstance(code, str) else "failed"
    raise _KINDS.get(code, errors.OrionError)(message, code=code)


def _cut_off(cmd: str) -> errors.NotRunning:
    return errors.NotRunning(f"cannot tell how {cmd} went: the daemon ended before it answered; {START}")
