"""Owns the border to HTTP: reading bodies within bounds, who is calling, JSON answers, errors, CORS.

Knows nothing of what the routes do.
"""

import sqlite3
import zlib
from enum import Enum
from typing import Any, TypeVar

import msgspec
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from orionagent.console.accounts import User
from orionagent.console.tokens import Device, Tokens
from orionagent.errors import BadRequest, OrionError

MAX_BODY_BYTES = 64 * 1024 * 1024
STATUS = {
    "bad-request": 400,
    "unauthorized": 401,
    "not-permitted": 403,
    "not-found": 404,
    "exists": 409,
    "gone": 410,
    "too-large": 413,
    "unsupported": 415,
    "busy": 429,
    "not-implemented": 501,
}
TITLES = {404: "Not found", 405: "Method not allowed", 413: "Body too large"}
CORS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Headers", "authorization, content-type"),
    ("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE"),
    ("Access-Control-Max-Age", "7200"),
)

Shape = TypeVar("Shape")


class Access(Enum):
    """Whose token a route asks for."""

    PUBLIC = "public"
    USER = "user"
    DEVICE = "device"


class Unauthorized(OrionError):
    """No token, or one that stands for nobody."""

    code = "unauthorized"


class Call:
    """One request on its way through a route: body, query, and who is calling."""

    def __init__(self, request: Request, tokens: Tokens, access: Access) -> None:
        self.request = request
        self.query = request.args
        self._user: User | None = None
        self._device: Device | None = None
        if access is Access.PUBLIC:
            return
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise Unauthorized("cannot answer without a token; send the header Authorization: Bearer <token>")
        if access is Access.USER:
            self._user = tokens.user_of(token)
        else:
            self._device = tokens.device_of(token)
        if self._user is None and self._device is None:
            raise Unauthorized("cannot accept this token: it is unknown or expired; sign in or make a new one")

    @property
    def user(self) -> User:
        """The person calling a user route."""
        assert self._user is not None
        return self._user

    @property
    def device(self) -> Device:
        """The device calling a device route."""
        assert self._device is not None
        return self._device

    @property
    def ip(self) -> str | None:
        """The caller's address."""
        return self.request.remote_addr

    def body(self) -> bytes:
        """Read the whole body, gunzipped where it says so.

        Raises:
            OrionError: code too-large, over 64 MiB sent or unpacked; code unsupported, another coding.
            BadRequest: it says gzip and is not.
        """
        data = self.request.get_data(cache=False)
        match self.request.headers.get("Content-Encoding", "identity").lower():
            case "identity" | "":
                return data
            case "gzip":
                return _gunzip(data)
            case other:
                raise OrionError(f"cannot read content coding {other!r}; use gzip", code="unsupported")

    def json(self, shape: type[Shape]) -> Shape:
        """Read the body as JSON of this shape; an empty body counts as `{}`.

        Raises:
            BadRequest: no JSON, or a field that is missing or of another type; the message names it.
        """
        try:
            return msgspec.json.decode(self.body() or b"{}", type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"cannot read the body: {error}") from error

    def words(self, name: str) -> list[str]:
        """Return a comma list of the query."""
        return [word.strip() for word in self.query.get(name, "").split(",") if word.strip()]

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """Return an integer of the query.

        Raises:
            BadRequest: not an integer between `low` and `high`.
        """
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text[:12]) <= high:
            raise BadRequest(f"cannot use {name}={text!r}: it must be a number from {low} to {high}")
        return int(text)


def _gunzip(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise BadRequest(f"cannot unpack the body: {error}") from error
    if len(unpacked) > MAX_BODY_BYTES:
        raise OrionError("cannot take more than 64 MiB in a request; send smaller ones", code="too-large")
    if not unpacker.eof:
        raise BadRequest("cannot unpack the body: it ends early")
    return unpacked


def answer(data: Any = None, status: int = 200) -> Response:
    """Return a JSON answer; with status 204 an empty one."""
    if status == 204:
        return Response(status=204)
    return Response(msgspec.json.encode(data), status=status, mimetype="application/json")


def error_answer(error: Exception) -> Response:
    """Return an error in the one shape that every client can read: `error` and `message`, and our `code`."""
    match error:
        case RequestEntityTooLarge():
            status, code, message = 413, "too-large", "cannot take more than 64 MiB in a request"
        case HTTPException():
            status, code = error.code or 500, "http"
            message = f"{TITLES.get(status, error.name)}: {error.description or error.name}"
        case OverflowError():
            status, code, message = 400, "bad-request", "cannot use a number that large; it must fit into 64 bits"
        case sqlite3.OperationalError():
            # A full or failing disk: the device keeps what it has and tries again.
            status, code, message = 503, "unavailable", f"cannot reach the database: {error}"
        case OrionError():
            status, code, message = STATUS.get(error.code, 500), error.code, error.message
        case _:
            status, code, message = 500, "failed", "cannot answer: the console met an error; see its output"
    response = answer({"error": message, "message": message, "code": code}, status)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
