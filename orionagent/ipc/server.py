"""Owns the daemon's side of the Unix socket: who is let in, with what authority, and how many.

Must not know what the commands mean.
"""

import grp
import logging
import time
from collections.abc import Callable, Mapping

import gevent
from gevent import socket

from orionagent.errors import Busy
from orionagent.ipc.access import Access, Caller, Command, RateLimit, access_of
from orionagent.ipc.connection import Connection
from orionagent.ipc.listener import Listener, peer_of
from orionagent.ipc.protocol import framing_for
from orionagent.tasks import TaskFailed, TaskGroup

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
KEPT_FOR_OPERATORS = 16
"""Connections that strangers cannot take, so that root can always stop what they are doing."""

MOST_REFUSALS = 64
SEND_S = 10.0
REFUSAL_S = 1.0
STOP_S = 5.0
DETACH_S = 1.0
GROUP_FRESH_S = 30.0
LOG_BURST = 1000
LOG_PER_S = 200.0
PAUSE_S = 0.2


class Server:
    """The socket's server. Sole writer of the set of connections."""

    def __init__(
        self,
        path: str,
        commands: Mapping[str, Command],
        *,
        owner_uid: int,
        group_name: str = "orion",
        inherited_fd: int | None = None,
        send_timeout_s: float = SEND_S,
        partial_timeout_s: float = 30.0,
        on_failure: Callable[[TaskFailed], None] | None = None,
    ) -> None:
        self._commands = commands
        self._owner_uid = owner_uid
        self._group_name = group_name
        self._group: tuple[float, int | None] | None = None
        self._send_timeout_s = send_timeout_s
        self._partial_timeout_s = partial_timeout_s
        self._listener = Listener(path, inherited_fd)
        self._limit = RateLimit(burst=LOG_BURST, per_s=LOG_PER_S)
        self._tasks = TaskGroup("ipc", on_failure)
        self._conversations = TaskGroup("ipc connections")
        self._connections: set[Connection] = set()
        self._refusals = 0

    def __repr__(self) -> str:
        return f"Server({self._listener.path!r}, {len(self._connections)} connections)"

    def start(self) -> None:
        """Listen, and answer from now on; returns at once.

        Raises:
            OrionError: the socket cannot be made.
        """
        self._listener.open()
        self._tasks.spawn("ipc accept", self._accept_all)
        self._tasks.spawn("ipc name", self._listener.keep_name)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Delete the socket, let calls under way be answered for `timeout_s`, end all conversations."""
        self._tasks.stop(timeout_s)
        self._listener.close()
        self._end_conversations(timeout_s)

    def detach(self, timeout_s: float = DETACH_S) -> int:
        """Stop, but return the listening descriptor, open: who connects now waits for the next image.

        Calls under way are answered for up to `timeout_s`. The descriptor closes on exec unless that is changed.
        """
        self._tasks.stop(STOP_S)
        descriptor = self._listener.detach()
        self._end_conversations(timeout_s)
        return descriptor

    def _end_conversations(self, timeout_s: float) -> None:
        gevent.joinall([call for connection in self._connections for call in connection.calls], timeout=timeout_s)
        self._conversations.stop(STOP_S)

    def _accept_all(self) -> None:
        while True:
            try:
                peer = self._listener.accept()
            except OSError as error:
                # Out of descriptors, or the socket was just made anew.
                log.warning("cannot accept a connection: %s", error)
                gevent.sleep(PAUSE_S)
                continue
            self._welcome(peer)

    def _welcome(self, peer: socket.socket) -> None:
        try:
            uid, groups = peer_of(peer)
        except OSError as error:
            log.warning("cannot tell who connects: %s", error)
            peer.close()
            return
        access = access_of(uid, groups, owner_uid=self._owner_uid, operators=self._operators())
        room = MOST_CONNECTIONS - (KEPT_FOR_OPERATORS if access is Access.EVERYONE else 0)
        if len(self._connections) >= room:
            self._turn_away(peer)
            return
        connection = Connection(
            peer,
            Caller(uid=uid, access=access),
            self._commands,
            limit=self._limit,
            tasks=self._conversations,
            send_timeout_s=self._send_timeout_s,
            partial_timeout_s=self._partial_timeout_s,
        )
        self._connections.add(connection)
        task = self._conversations.spawn("ipc connection", connection.serve)
        task.link(lambda _: self._forget(connection, peer))

    def _forget(self, connection: Connection, peer: socket.socket) -> None:
        self._connections.discard(connection)
        # Killed before its first step it has not closed anything.
        peer.close()

    def _operators(self) -> int | None:
        """Return the group's id; the group database is asked at most every `GROUP_FRESH_S`."""
        now_s = time.monotonic()
        if self._group is None or now_s - self._group[0] > GROUP_FRESH_S:
            try:
                self._group = (now_s, grp.getgrnam(self._group_name).gr_gid)
            except KeyError:
                self._group = (now_s, None)
        return self._group[1]

    def _turn_away(self, peer: socket.socket) -> None:
        if self._refusals >= MOST_REFUSALS:
            # No patience left for waiting; a fresh socket takes these few bytes at once.
            self._say_busy(peer, b"\n")
            peer.close()
            return
        self._refusals += 1
        task = self._conversations.spawn("ipc refusal", self._refuse, peer)
        task.link(lambda _: self._refused(peer))

    def _refused(self, peer: socket.socket) -> None:
        self._refusals -= 1
        peer.close()

    def _refuse(self, peer: socket.socket) -> None:
        """Wait for the first words, to answer in their framing and not to break the caller's sending."""
        peer.settimeout(REFUSAL_S)
        try:
            first = peer.recv(65536)
        except TimeoutError:
            first = b"\n"
        except OSError:
            return
        if first:
            self._say_busy(peer, first)

    def _say_busy(self, peer: socket.socket, first: bytes) -> None:
        message = f"cannot answer: {MOST_CONNECTIONS} connections are open already; try again later"
        try:
            peer.sendall(framing_for(first).error(None, Busy.code, message))
        except OSError as error:
            log.debug("cannot refuse a connection: %s", error)
