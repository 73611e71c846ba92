"""Owns `House`: a supervisor below a root of its own, with what it emitted and alerted; and its fixture `house`."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from orionagent.config import parse_script
from orionagent.paths import Paths
from orionagent.scripts.cgroup import MemoryKills
from orionagent.scripts.handover import Descriptors, Inherited
from orionagent.scripts.kernel import become_subreaper
from orionagent.scripts.redact import Redactor
from orionagent.scripts.supervisor import Supervisor
from orionagent.scripts.tree import is_alive, read_stat
from orionagent.tasks import TaskFailed
from orionagent.wire import Alert, Batch

DEADLINE_S = 20.0


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the condition's first truthy value; fail after a generous deadline."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        gevent.sleep(0.01)
    pytest.fail(f"never happened: {what}")


class House:
    """A supervisor with what it emitted and alerted, the descriptors it had kept, and the deaths of its parts."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.batches: list[Batch] = []
        self.alerts: list[Alert] = []
        self.kept: dict[str, int] = {}
        self.failures: list[TaskFailed] = []
        self.supervisor = self.make()

    def make(self, inherited: Inherited | None = None) -> Supervisor:
        offsets = {b.pipe: b.offset for b in self.batches if b.pipe is not None and b.offset is not None}
        return Supervisor(
            self.paths,
            hostname="host",
            emit=self.batches.append,
            alert=self.alerts.append,
            offsets=offsets,
            redactor=Redactor(None),
            descriptors=Descriptors(
                take=(inherited or Inherited({})).take,
                keep=self.kept.__setitem__,
                forget=self._forget,
            ),
            on_failure=self.failures.append,
            memory_kills=MemoryKills(self.paths.run, time.monotonic),
        )

    def _forget(self, name: str) -> None:
        self.kept.pop(name, None)

    def add(self, name: str, command: str, **fields: Any) -> dict[str, Any]:
        return self.supervisor.add(parse_script({"name": name, "command": command, "cwd": "/tmp", **fields}))

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.supervisor.rows() if row["name"] == name)

    def lines(self, name: str, stream: str = "stdout") -> list[str]:
        return [m for b in self.batches if b.source == name and b.stream == stream for m in b.messages]

    def reach(self, name: str, phase: str) -> dict[str, Any]:
        wait_for(lambda: self.row(name)["phase"] == phase, f"{name} is {phase}")
        return self.row(name)


@pytest.fixture
def house(paths: Paths) -> Iterator[House]:
    become_subreaper()
    found = House(paths)
    found.supervisor.start_all(())
    yield found
    found.supervisor.stop_all()
    found.supervisor.let_go(close=True)
    found.supervisor.reap()
    become_subreaper(False)  # else the orphans of later tests would be ours


def alive(pid: int) -> bool:
    return is_alive(read_stat(pid))
