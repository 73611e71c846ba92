"""Owns the shapes that cross the network: entry, alert, heartbeat, command.

Knows nothing of files, sockets or processes. Field names are the wire's names (camelCase).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

Level = Literal["trace", "verbose", "debug", "info", "warn", "error", "fatal"]
LEVELS: tuple[Level, ...] = ("trace", "verbose", "debug", "info", "warn", "error", "fatal")

Stream = Literal["stdout", "stderr", "cli", "agent"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One log entry as the buffer keeps it and `POST /agent/logs` sends it, one a line.

    `timestamp` is RFC 3339, UTC, milliseconds. `seq` never repeats within one buffer instance; the pair
    of both is what a backend de-duplicates by.
    """

    seq: int
    timestamp: str
    level: str
    message: str
    source: str
    stream: str
    metadata: dict[str, Any] | None = None
    tags: Sequence[str] = ()
    partial: bool = False
    damaged: bool = False


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """What only few lines of a batch have."""

    metadata: Mapping[str, Any] | None = None
    tags: Sequence[str] = ()
    partial: bool = False


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one stream of one source on their way into the buffer, column-wise.

    Column-wise because the hot path must not make an object per line: `levels` is one word for all lines or
    one per line; `extras` maps a line's index to its rarities. `timestamp` is when the lines were read.
    `offset` is the byte offset behind the last of these lines in `pipe` ("script:stream": several scripts may share
    a source), None where there is no pipe.
    """

    source: str
    stream: Stream
    timestamp: str
    messages: Sequence[str]
    levels: str | Sequence[str]
    extras: Mapping[int, Extra] = {}
    offset: int | None = None
    pipe: str | None = None

    def __len__(self) -> int:
        return len(self.messages)


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A crash alert, `POST /agent/alert`: who, how, how often, what happens next, the last lines.

    `id` is stable over retries. `exitCode` and `signal` exclude each other; both absent: the kernel
    could not tell, `cause` is then "unknown".
    `repeated` counts further crashes merged into this alert when 1,000 alerts were waiting.
    """

    id: str
    timestamp: str
    hostname: str
    script: str
    source: str
    message: str
    cause: Literal["exit", "signal", "memory-limit", "oom-kill", "spawn", "unknown"]
    exitCode: int | None = None
    signal: str | None = None
    coreDumped: bool = False
    ranMs: int | None = None
    crashesInARow: int = 1
    willRestart: bool = False
    restartInMs: int | None = None
    lastLines: Sequence[str] = ()
    repeated: int = 0


class Cpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shares of all CPUs since the previous sample, 0 to 100; None (absent) until there is a previous one."""

    percent: float | None = None
    stealPercent: float | None = None
    count: float | None = None
    load1: float | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """MiB; used is total minus available."""

    usedMb: float | None = None
    totalMb: float | None = None
    percent: float | None = None


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """GiB of one real filesystem."""

    path: str
    device: str
    fstype: str
    usedGb: float
    totalGb: float
    percent: float


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """GiB summed over real, distinct filesystems."""

    usedGb: float | None = None
    totalGb: float | None = None
    percent: float | None = None
    mounts: Sequence[Mount] = ()


class Network(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes per second over physical interfaces since the previous sample."""

    rxBytesPerSecond: float | None = None
    txBytesPerSecond: float | None = None


class HostSample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reading of the machine; what cannot be read is absent, never zero."""

    uptimeSeconds: float | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    disk: Disk | None = None
    network: Network | None = None
    scope: Literal["host", "container"] = "host"


class ScriptReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One script in a heartbeat; cpuPercent and memoryMb cover its whole process tree."""

    name: str
    source: str
    state: Literal["running", "stopped", "crashed"]
    pid: int | None = None
    uptimeSeconds: float | None = None
    restarts: int = 0
    cpuPercent: float | None = None
    memoryMb: float | None = None


class BufferReport(msgspec.Struct, frozen=True, kw_only=True):
    """How full the offline buffer is."""

    entries: int
    bytes: int
    oldestAgeSeconds: float | None
    droppedTotal: int


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /agent/heartbeat`."""

    hostname: str
    agentVersion: str
    bootId: str
    timestamp: str
    uptimeSeconds: float | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    disk: Disk | None = None
    network: Network | None = None
    scripts: Sequence[ScriptReport] = ()
    buffer: BufferReport | None = None
    scope: Literal["host", "container"] = "host"
    stopping: bool = False


class RemoteCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command that the backend wants done, by source; `source` None means every script."""

    id: int
    type: str
    source: str | None = None


class HeartbeatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend may say to a heartbeat; every part may be missing.

    `commands` None means that it did not say (204), so they are asked for by `GET /agent/commands`.
    """

    commands: Sequence[RemoteCommand] | None = None
    serverTime: str | None = None
    heartbeatInterval: int | None = None
