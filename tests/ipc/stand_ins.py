"""Stand-ins for the parts behind the commands, and a server in front of them."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from gevent.event import Event

from orionagent.config import AgentConfig, ScriptConfig
from orionagent.errors import Exists, NotFound
from orionagent.handlers import Services, make_commands
from orionagent.ipc.access import Command, nearest
from orionagent.ipc.server import Server
from orionagent.paths import Paths
from orionagent.ports import Row
from orionagent.wire import Batch, Cpu, HostSample
from tests.ipc.talk import Talk


def make_row(name: str, phase: str = "stopped") -> Row:
    state = phase if phase in ("running", "stopped") else "crashed"
    return {
        "name": name,
        "source": f"{name}-source",
        "phase": phase,
        "state": state,
        "pid": None,
        "uptimeSeconds": None,
        "restarts": 0,
        "crashesInARow": 0,
        "cpuPercent": None,
        "memoryMb": None,
        "nextRestartSeconds": None,
        "lastExit": None,
        "note": None,
        "enabled": True,
    }


def make_entry(seq: int, message: str) -> Row:
    return {
        "seq": seq,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "level": "info",
        "message": message,
        "source": "api-backend-source",
        "stream": "stdout",
    }


class ScriptsInMemory:
    """Rows and definitions without processes. `gate`, once cleared, holds every `stop` up."""

    def __init__(self) -> None:
        self.known = {"api-backend": make_row("api-backend")}
        self.definitions: dict[str, Row] = {
            "api-backend": {"name": "api-backend", "command": "node x.js", "env": {"TOKEN": "hunter2"}}
        }
        self.gate = Event()
        self.gate.set()
        self.waiting = 0

    def _find(self, name: str) -> Row:
        if name not in self.known:
            raise NotFound(f"Script not found: {name}{nearest(name, self.known)}")
        return self.known[name]

    def start(self, name: str, /) -> Row:
        self._find(name)
        self.known[name] = make_row(name, "running")
        return self.known[name]

    def stop(self, name: str, /) -> Row:
        self._find(name)
        self.waiting += 1
        self.gate.wait()
        self.waiting -= 1
        self.known[name] = make_row(name)
        return self.known[name]

    def restart(self, name: str, /) -> Row:
        return self.start(name)

    def rows(self) -> Sequence[Row]:
        return [*self.known.values()]

    def names_of_source(self, source: str | None, /) -> Sequence[str]:
        return [row["name"] for row in self.known.values() if source in (None, row["source"])]

    def show(self, name: str, /) -> Row:
        return {
            **self._find(name),
            "definition": self.definitions[name],
            "tree": [],
            "lastLines": ["the last line"],
        }

    def add(self, config: ScriptConfig, /) -> Row:
        if config.name in self.known:
            raise Exists(f"cannot add {config.name}: there is a script of this name")
        self.known[config.name] = make_row(config.name)
        self.definitions[config.name] = msgspec.to_builtins(config)
        return self.known[config.name]

    def update(self, name: str, fields: Mapping[str, Any], /) -> Row:
        self._find(name)
        self.definitions[name] = {**self.definitions[name], **fields}
        return self.known[name]

    def remove(self, name: str, /) -> Row:
        self._find(name)
        del self.known[name]
        return {"name": name}


class QueueFollower:
    """Entries that a test puts in; at most `most` are kept, like the real one's byte limit."""

    def __init__(self, most: int) -> None:
        self.lost = 0
        self.closed = Event()
        self._most = most
        self._entries: deque[Row] = deque()
        self._more = Event()

    def put(self, entry: Row) -> None:
        self._entries.append(entry)
        if len(self._entries) > self._most:
            self._entries.popleft()
            self.lost += 1
        self._more.set()

    def next(self) -> Sequence[Row]:
        while not self._entries and not self.closed.is_set():
            self._more.clear()
            self._more.wait()
        entries = [*self._entries]
        self._entries.clear()
        return entries

    def close(self) -> None:
        self.closed.set()
        self._more.set()


class BufferShape(msgspec.Struct):
    """An empty buffer."""

    entries: int = 0
    bytes: int = 0
    oldestAgeSeconds: float | None = None
    droppedTotal: int = 0
    rejectedTotal: int = 0
    memoryOnly: bool = False


class LinkShape(msgspec.Struct):
    """A link that works."""

    state: str = "connected"
    since: str = "2026-01-01T00:00:00.000Z"
    lastError: str | None = None
    nextAttemptSeconds: float | None = None


class FlushShape(msgspec.Struct):
    """A flush that did something."""

    sent: int = 3
    remaining: int = 0


class EntriesInMemory:
    """Keeps what is offered; followers get what a test puts into them."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.followers: list[QueueFollower] = []
        self.past: list[Row] = [make_entry(9, "ready")]

    def offer(self, batch: Batch, /) -> int:
        self.batches.append(batch)
        return len(self.batches)

    def buffer_status(self) -> msgspec.Struct:
        return BufferShape()

    def link(self) -> msgspec.Struct:
        return LinkShape()

    def flush_now(self) -> msgspec.Struct:
        return FlushShape()

    def tail(self, source: str | None, lines: int, /) -> Sequence[Row]:
        found = [entry for entry in self.past if source is None or entry["source"] == source]
        return found[-lines:] if lines else []

    def follow(self, source: str | None, /) -> QueueFollower:
        self.followers.append(QueueFollower(1000))
        return self.followers[-1]


class SteadyHeartbeat:
    """A machine that never changes."""

    def sample_now(self) -> HostSample:
        return HostSample(uptimeSeconds=5.0, cpu=Cpu(percent=12.5))


class SteadyBackend:
    """A backend whose clock is a quarter of a second ahead."""

    clock_skew_s: float | None = 0.25


class SteadyAgent:
    """An agent that runs since 42 s."""

    hostname = "box"
    started = 0.0
    config = AgentConfig()
    config_error: str | None = None

    def reload(self) -> Mapping[str, Any]:
        return {"changed": [], "added": ["web"], "removed": []}


class Fixture:
    """A server with its stand-ins, at `path`."""

    def __init__(self, paths: Paths, commands: Mapping[str, Command] | None = None, **options: Any) -> None:
        self.path = paths.socket
        self.scripts = ScriptsInMemory()
        self.entries = EntriesInMemory()
        services = Services(
            supervisor=self.scripts,
            shipper=self.entries,
            heartbeat=SteadyHeartbeat(),
            backend=SteadyBackend(),
            agent=SteadyAgent(),
            redact=lambda text: text.replace("hunter2", "[redacted]"),
            monotonic=lambda: 42.0,
            wall=lambda: 1_700_000_000.5,
        )
        self.services = services
        self.server = Server(self.path, {**make_commands(services), **(commands or {})}, owner_uid=0, **options)

    def connect(self) -> Talk:
        return Talk(self.path)


@contextmanager
def serving(paths: Paths, commands: Mapping[str, Command] | None = None, **options: Any) -> Iterator[Fixture]:
    """Yield a running server; it is stopped in the end."""
    fixture = Fixture(paths, commands, **options)
    fixture.server.start()
    try:
        yield fixture
    finally:
        fixture.scripts.gate.set()
        fixture.server.stop(2.0)
