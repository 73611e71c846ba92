"""Owns what the commands ask of the rest of the agent: one small protocol per part.

Must not know how any part fulfils it; tests give stand-ins of the same shape.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from orionagent.config import AgentConfig, ScriptConfig
from orionagent.wire import Batch, HostSample

Row: TypeAlias = dict[str, Any]


class SupervisorLike(Protocol):
    """What the commands ask of scripts/supervisor; each call blocks until the outcome is known."""

    def start(self, name: str, /) -> Row: ...  # noqa: D102
    def stop(self, name: str, /) -> Row: ...  # noqa: D102
    def restart(self, name: str, /) -> Row: ...  # noqa: D102
    def rows(self) -> Sequence[Row]: ...  # noqa: D102
    def names_of_source(self, source: str | None, /) -> Sequence[str]: ...  # noqa: D102
    def show(self, name: str, /) -> Row: ...  # noqa: D102
    def add(self, config: ScriptConfig, /) -> Row: ...  # noqa: D102
    def update(self, name: str, fields: Mapping[str, Any], /) -> Row: ...  # noqa: D102
    def remove(self, name: str, /) -> Row: ...  # noqa: D102


class FollowerLike(Protocol):
    """Somebody who reads along; a slow one loses the oldest entries, counted in `lost`."""

    lost: int

    def next(self) -> Sequence[Row]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class ShipperLike(Protocol):
    """What the commands ask of logs/shipper."""

    def offer(self, batch: Batch, /) -> int | None: ...  # noqa: D102
    def buffer_status(self) -> msgspec.Struct: ...  # noqa: D102
    def link(self) -> msgspec.Struct: ...  # noqa: D102
    def flush_now(self) -> msgspec.Struct: ...  # noqa: D102
    def tail(self, source: str | None, lines: int, /) -> Sequence[Row]: ...  # noqa: D102
    def follow(self, source: str | None, /) -> FollowerLike: ...  # noqa: D102


class HeartbeatLike(Protocol):
    """What the commands ask of metrics/heartbeat."""

    def sample_now(self) -> HostSample: ...  # noqa: D102


class BackendLike(Protocol):
    """What the commands ask of backend."""

    clock_skew_s: float | None


class AgentLike(Protocol):
    """What the commands ask of the whole; `started` is on the monotonic clock."""

    hostname: str
    started: float
    config: AgentConfig
    config_error: str | None

    def reload(self) -> Mapping[str, Any]: ...  # noqa: D102


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the commands reach. `redact` takes the secrets out of one line."""

    supervisor: SupervisorLike
    shipper: ShipperLike
    heartbeat: HeartbeatLike
    backend: BackendLike
    agent: AgentLike
    redact: Callable[[str], str]
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
