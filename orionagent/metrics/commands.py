"""Owns the remote commands: which of them are done, once each, and told back to the backend.

Knows neither what a script is nor how a command is carried out; that is `on_command`'s business.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from orionagent.errors import OrionError, Unsupported
from orionagent.tasks import TaskGroup
from orionagent.wire import RemoteCommand

log = logging.getLogger(__name__)

KNOWN_TYPES = ("start", "stop", "restart")
REMEMBERED = 256
UNSUPPORTED_PAUSE_S = 600.0


class CommandBackend(Protocol):
    """The two calls about commands; both block and raise the errors of `backend`."""

    def fetch_commands(self, hostname: str, /) -> Sequence[RemoteCommand]:
        """Return what waits for this host."""

    def ack_command(self, command_id: int, ok: bool, /) -> None:
        """Tell that a command is done, or failed."""


class RemoteCommands:
    """Does what the backend asks for, one command after the other, beside the heartbeat and never in its way.

    A command that was done but whose acknowledgement got lost comes again: it is acknowledged again and not
    repeated. Sole writer of that memory, which is of one backend: another one numbers its commands anew. A command
    can only start, stop or restart what is defined on this machine; anything else is refused without asking
    `on_command`.
    """

    def __init__(
        self,
        on_command: Callable[[RemoteCommand], bool],
        tasks: TaskGroup,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_command = on_command
        self._tasks = tasks
        self._clock = clock
        self._outcomes: OrderedDict[int, bool] = OrderedDict()
        # A flag rather than the greenlet: one that was killed would keep its request, and its socket, alive.
        self._working = False
        self._silent_until_s = 0.0

    def take(self, backend: CommandBackend, hostname: str, offered: Sequence[RemoteCommand] | None) -> None:
        """Begin to do `offered`; None: ask the backend first. Returns at once.

        While earlier commands are still being done nothing is begun: the backend offers the rest again.
        """
        if self._working:
            return
        if offered is None and self._clock() < self._silent_until_s:
            return
        if offered is None or offered:
            self._working = True
            self._tasks.spawn("heartbeat:commands", self._work, backend, hostname, offered, self._outcomes)

    def forget(self) -> None:
        """Begin anew with another backend; of what the former one asked, only what is under way is finished."""
        self._outcomes = OrderedDict()
        self._silent_until_s = 0.0

    def _work(
        self,
        backend: CommandBackend,
        hostname: str,
        offered: Sequence[RemoteCommand] | None,
        outcomes: OrderedDict[int, bool],
    ) -> None:
        try:
            self._do_all(backend, hostname, offered, outcomes)
        finally:
            self._working = False

    def _do_all(
        self,
        backend: CommandBackend,
        hostname: str,
        offered: Sequence[RemoteCommand] | None,
        outcomes: OrderedDict[int, bool],
    ) -> None:
        try:
            commands = backend.fetch_commands(hostname) if offered is None else offered
        except Unsupported:
            if outcomes is self._outcomes:
                self._silent_until_s = self._clock() + UNSUPPORTED_PAUSE_S
            return
        except OrionError as error:
            log.debug("cannot fetch remote commands: %s", error)
            return
        for command in commands:
            if outcomes is not self._outcomes:
                return
            ok = outcomes.get(command.id)
            if ok is None:
                ok = outcomes[command.id] = self._do(command)
                if len(outcomes) > REMEMBERED:
                    outcomes.popitem(last=False)
            if outcomes is not self._outcomes:
                return  # it would acknowledge a command of the backend that is asked now
            try:
                backend.ack_command(command.id, ok)
            except OrionError as error:
                log.warning("cannot acknowledge remote command %d: %s; it will be offered again", command.id, error)

    def _do(self, command: RemoteCommand) -> bool:
        what = f"{command.type!r} of {command.source or 'every script'}"
        if command.type not in KNOWN_TYPES:
            log.warning("remote command %d: cannot do %s: unknown type; refused", command.id, what)
            return False
        try:
            ok = self._on_command(command)
        except OrionError as error:
            log.warning("remote command %d: %s failed: %s", command.id, what, error)
            return False
        log.info("remote command %d: %s %s", command.id, what, "done" if ok else "failed")
        return ok
