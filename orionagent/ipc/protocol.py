"""Owns the two framings of the socket, JSON lines and MessagePack-RPC, as pure codecs: bytes in, requests out.

Must not know sockets, clocks, peers or what the commands mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from orionagent.ipc.frames import FrameScanner, TooLong

LIMIT = 1 << 20
"""Bytes of the largest request."""

_MOST_MSGID = 0xFFFF_FFFF
_RESPONSE, _NOTIFICATION = 1, 2
_Unreadable = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `params` is a map, or a list of positional values (MessagePack-RPC only).

    `id` is the caller's; None asks for an answer in the order of the calls, `notify` for none at all.
    """

    cmd: str
    params: Mapping[str, Any] | Sequence[Any]
    id: str | int | None = None
    notify: bool = False


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are no request. After a `fatal` one nothing further can be read from the connection."""

    message: str
    id: str | int | None = None
    fatal: bool = False


class Framing(Protocol):
    """How requests and replies look on one connection; holds the unread rest of the stream."""

    @property
    def pending(self) -> bool:
        """Tell whether part of a message is there."""

    def feed(self, chunk: bytes, /) -> Iterator[Request | Malformed]:
        """Yield what `chunk` completes; exhaust it before the next call."""

    def reply(self, request_id: str | int | None, data: Any, /) -> bytes:
        """Encode a successful answer."""

    def error(self, request_id: str | int | None, code: str, message: str, /) -> bytes:
        """Encode a refusal."""

    def opening(self, request: Request, /) -> bytes:
        """Encode what stands before the first item of a followed stream; may be nothing."""

    def item(self, request: Request, data: Any, /) -> bytes:
        """Encode one item of a followed stream."""


def framing_for(first: bytes) -> Framing:
    """Choose by the first byte of a connection: an array's is MessagePack-RPC, any other JSON lines."""
    byte = first[0]
    return MessagePackRpc() if 0x90 <= byte <= 0x9F or byte in (0xDC, 0xDD) else JsonLines()


class JsonLines:
    """One JSON object a line, as in the guide."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0

    @property
    def pending(self) -> bool:
        """Tell whether part of a line is there."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> Iterator[Request | Malformed]:
        """Yield a request or the reason why it is none for each line that `chunk` completes."""
        rest = self._rest
        rest += chunk
        while (end := rest.find(b"\n", self._seen)) >= 0:
            line = bytes(rest[:end]) if end <= LIMIT else None
            del rest[: end + 1]
            self._seen = 0
            if line is None:
                yield Malformed(message=_too_long())
            elif line.strip():
                yield read_object(line)
        self._seen = len(rest)
        if len(rest) > LIMIT:
            rest.clear()
            self._seen = 0
            yield Malformed(message=_too_long(), fatal=True)

    def reply(self, request_id: str | int | None, data: Any) -> bytes:
        """Encode a successful answer."""
        return _line({"ok": True, "data": data}, request_id)

    def error(self, request_id: str | int | None, code: str, message: str) -> bytes:
        """Encode a refusal."""
        return _line({"ok": False, "error": message, "code": code}, request_id)

    def opening(self, _request: Request) -> bytes:
        """Return nothing: the items themselves are replies."""
        return b""

    def item(self, request: Request, data: Any) -> bytes:
        """Encode one of many answers."""
        return self.reply(request.id, data)


def read_object(line: bytes) -> Request | Malformed:
    """Read one request line."""
    try:
        fields = msgspec.json.decode(line)
    except _Unreadable as error:
        return Malformed(message=f'cannot read the request: {error}; send one JSON object a line, {{"cmd":"ping"}}')
    if not isinstance(fields, dict):
        return Malformed(message='cannot read the request: it is no JSON object; send {"cmd":"ping"}')
    request_id = fields.pop("id", None)
    if not _is_id(request_id):
        return Malformed(message="cannot read the request: id must be a string or a whole number of 64 bits")
    notify = fields.pop("notify", False)
    if not isinstance(notify, bool):
        return Malformed(message="cannot read the request: notify must be true or false", id=request_id)
    cmd = fields.pop("cmd", None)
    if not isinstance(cmd, str):
        return Malformed(message='cannot read the request: no cmd; send for example {"cmd":"ping"}', id=request_id)
    return Request(cmd=cmd, params=fields, id=request_id, notify=notify)


def _is_id(value: object) -> bool:
    match value:
        case None | str():
            return True
        case int() if not isinstance(value, bool):
            return -(1 << 63) <= value < 1 << 64  # what can be sent back
    return False


def _line(fields: dict[str, Any], request_id: str | int | None) -> bytes:
    if request_id is not None:
        fields["id"] = request_id
    return msgspec.json.encode(fields) + b"\n"


def _too_long() -> str:
    return f"cannot read the request: it is longer than {LIMIT} bytes; send less at once"


class MessagePackRpc:
    """MessagePack-RPC: `[0, msgid, method, params]`, `[1, msgid, error, result]`, `[2, method, params]`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._scanner = FrameScanner(LIMIT)

    @property
    def pending(self) -> bool:
        """Tell whether part of a message is there."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> Iterator[Request | Malformed]:
        """Yield a request or the reason why it is none for each message that `chunk` completes."""
        rest = self._rest
        rest += chunk
        try:
            while (end := self._scanner.find_end(rest)) is not None:
                message = bytes(rest[:end])
                del rest[:end]
                yield read_array(message)
        except TooLong:
            rest.clear()
            yield Malformed(message=_too_long(), fatal=True)
        except ValueError as error:
            rest.clear()
            yield Malformed(message=f"cannot read the request: {error}; send MessagePack-RPC", fatal=True)

    def reply(self, request_id: str | int | None, data: Any) -> bytes:
        """Encode a response with its result."""
        return msgspec.msgpack.encode((_RESPONSE, request_id, None, data))

    def error(self, request_id: str | int | None, code: str, message: str) -> bytes:
        """Encode a response with its error; msgid is nil where the request's could not be read."""
        return msgspec.msgpack.encode((_RESPONSE, request_id, {"code": code, "message": message}, None))

    def opening(self, request: Request) -> bytes:
        """Encode the response that says which stream the coming notifications belong to."""
        return self.reply(request.id, {"stream": request.id})

    def item(self, request: Request, data: Any) -> bytes:
        """Encode one item as a notification of the same method: `[2, method, [msgid, data]]`."""
        return msgspec.msgpack.encode((_NOTIFICATION, request.cmd, (request.id, data)))


def read_array(message: bytes) -> Request | Malformed:
    """Read one complete MessagePack-RPC message."""
    try:
        parts = msgspec.msgpack.decode(message)
    except (*_Unreadable, ValueError, TypeError) as error:
        return Malformed(message=f"cannot read the request: {error}; send MessagePack-RPC")
    match parts:
        case [0, int(msgid), str(method), params] if _is_msgid(msgid) and parts[0] is not False:
            return _read_call(method, params, msgid)
        case [2, str(method), params]:
            return _read_call(method, params, None)
        case [0, int(msgid), *_] if _is_msgid(msgid):
            return Malformed(message="cannot read the request: send [0, msgid, method, params]", id=msgid)
    return Malformed(message="cannot read the request: send [0, msgid, method, params] or [2, method, params]")


def _is_msgid(value: int) -> bool:
    return not isinstance(value, bool) and 0 <= value <= _MOST_MSGID


def _read_call(method: str, params: Any, msgid: int | None) -> Request | Malformed:
    if params is None:
        params = {}
    # One map is parameters by name. A command whose only parameter is a map takes it by name too.
    if isinstance(params, list) and len(params) == 1 and isinstance(params[0], dict):
        params = params[0]
    if isinstance(params, dict) and not all(isinstance(key, str) for key in params):
        return Malformed(message=f"cannot read the request: the names of {method}'s params must be strings", id=msgid)
    if not isinstance(params, dict | list):
        return Malformed(message=f"cannot read the request: params of {method} must be an array or a map", id=msgid)
    return Request(cmd=method, params=params, id=msgid, notify=msgid is None)
