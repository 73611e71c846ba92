"""Owns `TaskGroup`: named greenlets that belong to somebody who hears of their death.

Knows nothing of what the greenlets do.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import gevent
from gevent.event import AsyncResult

log = logging.getLogger(__name__)


if TYPE_CHECKING:
    Task: TypeAlias = gevent.Greenlet[..., Any]
else:  # not subscriptable at run time
    Task = gevent.Greenlet


class TaskFailed(Exception):
    """A greenlet of a group died; `__cause__` is its error, `task` its name."""

    def __init__(self, task: str) -> None:
        super().__init__(f"the part {task!r} of the agent failed")
        self.task = task


class TaskGroup:
    """The greenlets of one owner.

    A greenlet that raises makes `failed` known to whoever waits in `wait_failed` and is logged by name; the
    others go on until `stop`. Sole writer of its member set.
    """

    def __init__(self, name: str, on_failure: Callable[[TaskFailed], None] | None = None) -> None:
        self.name = name
        self._members: dict[Task, str] = {}
        self._failure: AsyncResult[TaskFailed] = AsyncResult()
        self._on_failure = on_failure

    def __repr__(self) -> str:
        return f"TaskGroup({self.name!r}, {sorted(self._members.values())})"

    def __len__(self) -> int:
        return len(self._members)

    def spawn(self, name: str, function: Callable[..., Any], *args: Any) -> Task:
        """Start `function(*args)` in a greenlet called `name`; return at once."""
        greenlet = gevent.Greenlet(function, *args)
        greenlet.name = name
        self._members[greenlet] = name
        greenlet.link(self._ended)
        greenlet.start()
        return greenlet

    def _ended(self, greenlet: Task) -> None:
        name = self._members.pop(greenlet, None)
        if name is None or greenlet.successful() or isinstance(greenlet.value, gevent.GreenletExit):
            return
        failure = TaskFailed(name)
        failure.__cause__ = greenlet.exception
        log.error("%s: %s: %r", self.name, failure, greenlet.exception)
        if self._on_failure is not None:
            self._on_failure(failure)
        if not self._failure.ready():
            self._failure.set(failure)

    def wait_failed(self, timeout_s: float | None = None) -> TaskFailed | None:
        """Block until a member has died of an error and return that, or None when the time is up."""
        try:
            return self._failure.get(timeout=timeout_s)
        except gevent.Timeout:
            return None

    def cancel(self, name: str, timeout_s: float = 5.0) -> None:
        """Kill the members of this name and wait for their end."""
        gevent.killall([member for member, own in self._members.items() if own == name], timeout=timeout_s)

    def stop(self, timeout_s: float = 5.0) -> list[str]:
        """Kill all members and wait for their end; return the names of those still alive at the deadline."""
        members = list(self._members)
        gevent.killall(members, block=True, timeout=timeout_s)
        return [name for greenlet, name in self._members.items() if not greenlet.dead]
