"""Owns a listener of the console's live channel, as a browser would be one."""

import time
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import gevent
import msgspec
from gevent import socket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, RejectConnection, Request, TextMessage

from tests.console.process import ConsoleProcess


class Listener:
    """One live connection. `wait_for` returns the next message of a type, in order of arrival."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        target = f"{parts.path}?{parts.query}"
        origin = (b"Origin", b"http://localhost:3000")
        self._socket.sendall(self._protocol.send(Request(host=parts.netloc, target=target, extra_headers=[origin])))
        self._text = ""
        self.messages: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self.accepted = False
        while not self.accepted and self.closed_with is None:
            self._receive()

    @classmethod
    def to(cls, console: ConsoleProcess, project: str) -> Self:
        """Ask for a ticket and connect with it."""
        return cls(console.post("/api/ws/create", {"projectName": project})["url"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        self._protocol.receive_data(data or None)
        for event in self._protocol.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self.accepted = True
            case RejectConnection():
                self.closed_with = event.status_code
            case Ping():
                self._socket.sendall(self._protocol.send(event.response()))
            case TextMessage():
                self._text += event.data
                if event.message_finished:
                    self.messages.append(msgspec.json.decode(self._text))
                    self._text = ""
            case CloseConnection():
                self.closed_with = event.code
                if self.accepted and event.code != 1006:
                    self._socket.sendall(self._protocol.send(event.response()))

    def wait_for(self, kind: str, timeout_s: float = 20) -> dict[str, Any]:
        """Return the payload of the first unread message of this type; others before it count as read."""
        with gevent.Timeout(timeout_s, AssertionError(f"no {kind} message came")):
            while True:
                while self.messages:
                    message = self.messages.pop(0)
                    if message["type"] == kind:
                        assert set(message) == {"type", "payload", "projectName", "timestamp"}
                        payload: dict[str, Any] = message["payload"]
                        return payload
                self._receive()

    def wait_closed(self, timeout_s: float = 20) -> int:
        """Return the code that the server closes with."""
        deadline = time.monotonic() + timeout_s
        while self.closed_with is None:
            assert time.monotonic() < deadline, "the server does not close"
            self._receive()
        return self.closed_with

    def ping(self, payload: bytes) -> None:
        """Send a protocol ping."""
        self._socket.sendall(self._protocol.send(Ping(payload)))
