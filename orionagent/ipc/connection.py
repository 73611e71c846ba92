"""Owns one conversation: reads requests, runs each in a greenlet of its own, writes the answers.

Must not know how connections come about, nor what the commands do.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

import gevent
import msgspec
from gevent import socket
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from orionagent.errors import BadRequest, Busy, NotPermitted, OrionError, Timeout
from orionagent.ipc.access import NEEDS, Access, Caller, Command, RateLimit, Stream, brief, nearest, read_params
from orionagent.ipc.protocol import Framing, Malformed, Request, framing_for
from orionagent.tasks import Task, TaskGroup

log = logging.getLogger(__name__)

CHUNK = 65536
MOST_IN_FLIGHT = 32
MOST_STREAMS = 8
PARTIAL_S = 30.0


class Connection:
    """One caller's connection. Its greenlets are `tasks`'s; sole reader and writer of `peer`."""

    def __init__(
        self,
        peer: socket.socket,
        caller: Caller,
        commands: Mapping[str, Command],
        *,
        limit: RateLimit,
        tasks: TaskGroup,
        send_timeout_s: float,
        partial_timeout_s: float = PARTIAL_S,
    ) -> None:
        self.caller = caller
        self._peer = peer
        self._commands = commands
        self._limit = limit
        self._tasks = tasks
        self._send_timeout_s = send_timeout_s
        self._partial_timeout_s = partial_timeout_s
        self._slots = BoundedSemaphore(MOST_IN_FLIGHT)
        self._writing = BoundedSemaphore(1)
        self._streams: set[Task] = set()
        self._calls: set[Task] = set()
        self._turn = Event()
        self._turn.set()
        self._broken = False

    def __repr__(self) -> str:
        return f"Connection(uid {self.caller.uid}, {len(self._calls)} calls, {len(self._streams)} streams)"

    @property
    def calls(self) -> list[Task]:
        """The calls under way, followed streams not among them."""
        return list(self._calls)

    def serve(self) -> None:
        """Answer until the caller closes or stops reading; blocks. Calls that run then still come to their end."""
        try:
            self._read_all()
            gevent.joinall(list(self._calls))
        except OSError as error:
            log.debug("%r: %s", self, error)
        finally:
            gevent.killall(list(self._streams), block=False)
            self._peer.close()

    def _read_all(self) -> None:
        framing: Framing | None = None
        due_s: float | None = None  # when the message that has begun must be whole; only a whole one moves it
        while not self._broken:
            # What is there already is read also when the time is up: we may be the ones who are late.
            # A timer of our own: the socket's would hold for answers that are being sent meanwhile, too.
            left_s = None if due_s is None else max(due_s - time.monotonic(), 0.0)
            try:
                with gevent.Timeout(left_s, TimeoutError):
                    chunk = self._peer.recv(CHUNK)
            except TimeoutError:
                self._refuse_rest(framing)
                return
            if not chunk:
                return
            if framing is None:
                framing = framing_for(chunk)
            for message in framing.feed(chunk):
                due_s = None
                self._accept(framing, message)
                if isinstance(message, Malformed) and message.fatal:
                    return
                # Nobody's flood may keep the others from their turn.
                gevent.sleep(0)
            # Nor may one endless message.
            gevent.sleep(0)
            if not framing.pending:
                due_s = None
            elif due_s is None:
                due_s = time.monotonic() + self._partial_timeout_s
            elif time.monotonic() >= due_s:
                self._refuse_rest(framing)
                return

    def _refuse_rest(self, framing: Framing | None) -> None:
        if framing is not None:
            self._send(framing.error(None, Timeout.code, "the rest of the request has not come; send it whole"))

    def _accept(self, framing: Framing, request: Request | Malformed) -> None:
        """Give the request a greenlet; blocks while too many of this connection are at work."""
        self._slots.acquire()
        before = self._turn
        done = Event()
        if request.id is None:
            self._turn = done
        name = "malformed" if isinstance(request, Malformed) else request.cmd[:40]
        task = self._tasks.spawn(f"ipc {name}", self._run, framing, request, before, done)
        self._calls.add(task)
        task.link(lambda ended: self._ended(ended, done))

    def _ended(self, task: Task, done: Event) -> None:
        self._calls.discard(task)
        self._streams.discard(task)
        done.set()
        self._slots.release()

    def _run(self, framing: Framing, request: Request | Malformed, before: Event, done: Event) -> None:
        if request.id is None:
            # Without ids the order of the answers is all that tells them apart.
            before.wait()
        if isinstance(request, Malformed):
            self._send(framing.error(request.id, BadRequest.code, request.message))
            return
        try:
            data = self._call(request)
            if isinstance(data, Stream):
                try:
                    self._follow(framing, request, data, done)
                finally:
                    data.close()
            elif not request.notify:
                self._send(self._encode(framing, request, data))
        except OrionError as error:
            if not request.notify:
                self._send(framing.error(request.id, error.code, error.message))

    def _call(self, request: Request) -> Any:
        """Return what the command answers.

        Raises:
            OrionError: it is refused, or its handler has failed (code internal).
        """
        command = self._commands.get(request.cmd)
        if command is None:
            hint = nearest(request.cmd, self._commands) or f"; there are {', '.join(self._commands)}"
            raise BadRequest(f"cannot do {brief(request.cmd)}: no such command{hint}")
        if self.caller.access < command.access:
            raise NotPermitted(f"cannot {command.name}: only {NEEDS[command.access]} may; use sudo")
        try:
            params = read_params(command, request.params)
            if command.limited and self.caller.access is Access.EVERYONE:
                self._limit.take(self.caller.uid, time.monotonic())
            return command.handler(params, self.caller)
        except OrionError:
            raise
        except Exception as error:
            raise self._internal(request, error) from error

    def _internal(self, request: Request, error: Exception) -> OrionError:
        log.exception("%s failed", request.cmd)
        return OrionError(
            f"cannot {request.cmd}: the agent has failed at it ({type(error).__name__}); its log says where",
            code="internal",
        )

    def _encode(self, framing: Framing, request: Request, data: Any) -> bytes:
        try:
            return framing.reply(request.id, data)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise self._internal(request, error) from error

    def _follow(self, framing: Framing, request: Request, stream: Stream, done: Event) -> None:
        """Answer many times, until the stream ends or the caller is gone."""
        me = gevent.getcurrent()
        assert isinstance(me, gevent.Greenlet)
        if len(self._streams) >= MOST_STREAMS:
            raise Busy(f"cannot {request.cmd}: this connection follows {MOST_STREAMS} streams already; open another")
        if request.notify:
            raise BadRequest(f"cannot {request.cmd}: whoever follows wants answers; leave notify away")
        self._calls.discard(me)
        self._streams.add(me)
        done.set()
        self._send(framing.opening(request))
        try:
            for items in stream.bursts:
                self._send(b"".join([framing.item(request, item) for item in items]))
                if self._broken:
                    return
        except OrionError:
            raise
        except Exception as error:
            raise self._internal(request, error) from error

    def _send(self, data: bytes) -> None:
        """Write whole messages; a caller that does not read them in time is cut off."""
        if not data or self._broken:
            return
        try:
            with gevent.Timeout(self._send_timeout_s, TimeoutError), self._writing:
                if not self._broken:
                    self._peer.sendall(data)
        except OSError as error:
            log.debug("%r: %s", self, error)
            self._break()

    def _break(self) -> None:
        """Give the caller up: wakes the reader, which ends the conversation."""
        if self._broken:
            return
        self._broken = True
        try:
            self._peer.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("%r: %s", self, error)
