"""Owns the live channel: tickets, the WebSocket connections, and who hears what.

Knows nothing of where the news comes from.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
import msgspec
from gevent.event import Event as Signal
from gevent.lock import RLock
from gevent.queue import Empty, Full, Queue
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from orionagent.console.store import iso

log = logging.getLogger(__name__)

TICKET_AGE_S = 60.0
PING_EVERY_S = 20.0
SILENCE_S = 3 * PING_EVERY_S
MAX_WAITING = 2_000
MAX_ENTRIES_AT_ONCE = 200
GOING_AWAY, TRY_AGAIN_LATER = 1001, 1013


class Listener:
    """One browser tab: what waits to be sent to it."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.waiting: Queue[bytes | None] = Queue(MAX_WAITING)
        self.too_slow = False
        self.gone = Signal()

    def offer(self, frames: Iterable[bytes]) -> None:
        """Queue frames; one that does not keep up is cut off (it reconnects and reads anew)."""
        try:
            for frame in frames:
                self.waiting.put_nowait(frame)
        except Full:
            self.too_slow = True


class Channel:
    """All live listeners, by project. Sole owner of tickets and connections."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock
        self._tickets: dict[str, tuple[str, float]] = {}
        self._listeners: set[Listener] = set()
        self._closing = False

    def __repr__(self) -> str:
        return f"Channel({len(self._listeners)} listeners)"

    def issue_ticket(self, project: str) -> str:
        """Return a ticket for one connection within a minute."""
        now = self._now()
        self._tickets = {ticket: kept for ticket, kept in self._tickets.items() if kept[1] > now}
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = (project, now + TICKET_AGE_S)
        return ticket

    def redeem(self, ticket: str) -> str | None:
        """Use up a ticket; return its project, None for an unknown or expired one."""
        project, expires = self._tickets.pop(ticket, ("", 0.0))
        return project if expires > self._now() else None

    def has_listeners(self, project: str) -> bool:
        """Tell whether anybody would hear."""
        return any(listener.project == project for listener in self._listeners)

    def tell(self, project: str, kind: str, payloads: Sequence[dict[str, Any]]) -> None:
        """Send one message of this kind per payload to everybody on that project; never blocks.

        Of a burst only the newest 200 payloads are sent, after a `skipped` message with the number left out.
        """
        listeners = [listener for listener in self._listeners if listener.project == project]
        if not listeners:
            return
        frames = []
        skipped = len(payloads) - MAX_ENTRIES_AT_ONCE
        if skipped > 0:
            frames.append(self._envelope(project, "skipped", {"type": kind, "count": skipped}))
            payloads = payloads[skipped:]
        frames += [self._envelope(project, kind, payload) for payload in payloads]
        for listener in listeners:
            listener.offer(frames)

    def _envelope(self, project: str, kind: str, payload: dict[str, Any]) -> bytes:
        return msgspec.json.encode(
            {"type": kind, "payload": payload, "projectName": project, "timestamp": iso(self._now())}
        )

    def close(self, timeout_s: float) -> None:
        """Say goodbye to every listener; return when all have gone or the time is up."""
        self._closing = True
        for listener in self._listeners:
            listener.too_slow = True
            while listener.waiting.qsize():
                listener.waiting.get_nowait()
            listener.waiting.put_nowait(None)
        gevent.wait([listener.gone for listener in self._listeners], timeout=timeout_s)

    def serve(self, socket: Any, target: str, headers: Sequence[tuple[str, str]], project: str) -> None:
        """Carry one WebSocket connection to its end. Blocks the calling greenlet until then."""
        listener = Listener(project)
        try:
            line = _Line(socket, target, headers)
        except RemoteProtocolError:
            socket.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self._listeners.add(listener)
        reader = gevent.spawn(_read, line, listener)
        try:
            self._write(line, listener)
        except (OSError, LocalProtocolError) as error:
            log.debug("live connection ended: %s", error)
        finally:
            self._listeners.discard(listener)
            reader.kill()
            listener.gone.set()

    def _write(self, line: "_Line", listener: Listener) -> None:
        while True:
            try:
                frames = [listener.waiting.get(timeout=PING_EVERY_S)]
            except Empty:
                line.send(Ping())
                continue
            # What has gathered meanwhile goes out in one write.
            while listener.waiting.qsize() and len(frames) < MAX_ENTRIES_AT_ONCE:
                frames.append(listener.waiting.get_nowait())
            if listener.too_slow or None in frames:
                line.send(CloseConnection(code=GOING_AWAY if self._closing else TRY_AGAIN_LATER))
                return
            line.send(*(TextMessage(data=frame.decode()) for frame in frames if frame is not None))


class _Line:
    """One upgraded connection: protocol state and socket, written to by one greenlet at a time."""

    def __init__(self, socket: Any, target: str, headers: Sequence[tuple[str, str]]) -> None:
        self._socket = socket
        self._lock = RLock()
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._protocol.initiate_upgrade_connection(
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers], target
        )
        for event in self._protocol.events():
            if isinstance(event, Request):
                self.send(AcceptConnection())
        socket.settimeout(SILENCE_S)

    def send(self, *events: Event) -> None:
        """Send events in order, in one write."""
        with self._lock:
            self._socket.sendall(b"".join(self._protocol.send(event) for event in events))

    def receive(self) -> list[Event] | None:
        """Wait for the peer's next events; None when it has gone."""
        data = self._socket.recv(4096)
        if not data:
            return None
        self._protocol.receive_data(data)
        return list(self._protocol.events())


def _read(line: _Line, listener: Listener) -> None:
    """Answer pings and closing; what the browser says otherwise is of no interest."""
    try:
        while (events := line.receive()) is not None:
            for event in events:
                if isinstance(event, Ping):
                    line.send(event.response())
                elif isinstance(event, CloseConnection):
                    line.send(event.response())
                    return
    except (OSError, RemoteProtocolError, LocalProtocolError) as error:
        log.debug("live connection ended: %s", error)
    finally:
        listener.too_slow = True
        if not listener.waiting.full():
            listener.waiting.put_nowait(None)
