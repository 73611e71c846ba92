"""Owns the command table: each command's name, who may call it, what it takes, and what it calls.

Must not know sockets or framings, nor how the supervisor, the shipper and the heartbeat do their work.
"""

# ruff: noqa: ARG002 - every handler has the signature that the table asks for, needed or not
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from orionagent import __version__
from orionagent.config import parse_script
from orionagent.errors import BadRequest, Busy, NotFound
from orionagent.ipc.access import Access, Caller, Command, Stream, brief, nearest
from orionagent.ports import FollowerLike, Row, Services
from orionagent.render import render_status
from orionagent.wire import LEVELS, Batch, Extra

__all__ = ["Services", "make_commands"]

MAX_LOG_BYTES = 256 * 1024  # as long as a line of a script before it is split
MAX_METADATA_DEPTH = 32
MAX_SOURCE_CHARS = 128
MAX_FREE_SOURCES = 256  # the recent entries of each are kept in memory
MAX_STRANGERS_SOURCES = MAX_FREE_SOURCES // 2  # names are never given back: nobody's flood may take them all
FREE_FOR_ALL = "cli"  # the source of those who name none; it takes nobody's place
MASK = "***"


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No fields."""


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`render`: answer with text for a terminal of `columns` (0: none) instead of data."""

    render: bool = False
    color: bool = False
    columns: int = 0


class Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script's name."""

    name: str


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script's name and the fields that change."""

    name: str
    fields: dict[str, Any]


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry."""

    level: str
    message: str
    source: str = FREE_FOR_ALL
    tags: list[str] = []
    metadata: dict[str, Any] | None = None


class Tail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose entries (a script's or a source's name, None for all), how many, and whether to go on."""

    name: str | None = None
    lines: int = 100
    follow: bool = False


def make_commands(services: Services) -> dict[str, Command]:
    """Return the command table, by name."""
    do = _Handlers(services)
    everyone, operator, owner = Access.EVERYONE, Access.OPERATOR, Access.OWNER
    table = (
        Command("ping", everyone, Nothing, do.ping),
        Command("version", everyone, Nothing, do.version),
        Command("status", everyone, Status, do.status),
        Command("log", everyone, Log, do.log, limited=True),
        Command("script:list", everyone, Nothing, do.script_list),
        Command("script:show", everyone, Name, do.script_show),
        Command("script:start", operator, Name, do.script_start),
        Command("script:stop", operator, Name, do.script_stop),
        Command("script:restart", operator, Name, do.script_restart),
        Command("script:add", owner, None, do.script_add),  # a definition: config.parse_script checks it
        Command("script:update", owner, Update, do.script_update),
        Command("script:remove", owner, Name, do.script_remove),
        Command("logs:tail", operator, Tail, do.logs_tail),
        Command("buffer:flush", operator, Nothing, do.buffer_flush),
        Command("reload", operator, Nothing, do.reload),
    )
    return {command.name: command for command in table}


class _Handlers:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._supervisor = services.supervisor
        self._shipper = services.shipper
        self._free_sources: set[str] = set()
        self._strangers_sources = 0

    def ping(self, params: Nothing, caller: Caller) -> Row:
        return {"pong": True, "version": __version__}

    def version(self, params: Nothing, caller: Caller) -> Row:
        build = "frozen" if getattr(sys, "frozen", False) else "source"
        return {"version": __version__, "python": sys.version.split()[0], "build": build}

    def status(self, params: Status, caller: Caller) -> Row:
        agent = self._services.agent
        data = {
            "version": __version__,
            "pid": os.getpid(),
            "uptimeSeconds": round(self._services.monotonic() - agent.started, 1),
            "hostname": agent.hostname,
            "apiUrl": agent.config.apiUrl,
            "project": agent.config.project,
            "configError": agent.config_error,
            "host": msgspec.to_builtins(self._services.heartbeat.sample_now()),
            "scripts": list(self._supervisor.rows()),
            "link": {
                "clockSkewSeconds": self._services.backend.clock_skew_s,
                **msgspec.to_builtins(self._shipper.link()),
            },
            "buffer": msgspec.to_builtins(self._shipper.buffer_status()),
        }
        if params.render:
            return {"text": render_status(data, color=params.color, columns=max(0, params.columns))}
        return data

    def _link(self) -> Row:
        link: Row = msgspec.to_builtins(self._shipper.link())
        return link

    def log(self, params: Log, caller: Caller) -> Row:
        if params.level not in LEVELS:
            hint = nearest(params.level, LEVELS) or f"; use one of {', '.join(LEVELS)}"
            raise BadRequest(f"cannot log: unknown level {brief(params.level)}{hint}")
        extra = self._extra(params)
        if len(params.message.encode("utf-8", "replace")) > MAX_LOG_BYTES:
            raise BadRequest(f"cannot log: the message is over {MAX_LOG_BYTES} bytes; split it")
        self._check_source(params.source, caller)
        seq = self._shipper.offer(
            Batch(
                source=params.source,
                stream="cli",
                timestamp=_timestamp(self._services.wall()),
                messages=["\n".join(self._services.redact(line) for line in params.message.split("\n"))],
                levels=params.level,
                extras={} if extra is None else {0: extra},
            )
        )
        return {"seq": seq}

    def _extra(self, params: Log) -> Extra | None:
        """Return tags and metadata, redacted and reduced to what JSON can carry.

        Raises:
            BadRequest: they are too large, or hold values that JSON has not (MessagePack can).
        """
        if not params.tags and params.metadata is None:
            return None
        try:
            encoded = msgspec.json.encode([params.metadata, params.tags])
            metadata, tags = msgspec.json.decode(encoded)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BadRequest(f"cannot log: the metadata has no JSON form: {error}") from None
        if len(encoded) > MAX_LOG_BYTES:
            raise BadRequest(f"cannot log: metadata and tags are over {MAX_LOG_BYTES} bytes; send less")
        return Extra(metadata=self._redact_all(metadata), tags=self._redact_all(tags))

    def _redact_all(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_METADATA_DEPTH:
            raise BadRequest(f"cannot log: the metadata is nested deeper than {MAX_METADATA_DEPTH}; flatten it")
        match value:
            case str():
                return self._services.redact(value)
            case list():
                return [self._redact_all(item, depth + 1) for item in value]
            case dict():
                return {key: self._redact_all(item, depth + 1) for key, item in value.items()}
        return value

    def _check_source(self, source: str, caller: Caller) -> None:
        if not source or len(source) > MAX_SOURCE_CHARS or not source.isprintable():
            raise BadRequest(f"cannot log: a source is 1 to {MAX_SOURCE_CHARS} printable characters")
        if source == FREE_FOR_ALL or source in self._free_sources or self._supervisor.names_of_source(source):
            return
        stranger = caller.access < Access.OPERATOR
        if stranger and self._strangers_sources >= MAX_STRANGERS_SOURCES:
            raise Busy(
                f"cannot log: over {MAX_STRANGERS_SOURCES} different sources of users who are no operators since the"
                " start; use a script's or `cli`"
            )
        if len(self._free_sources) >= MAX_FREE_SOURCES:
            raise Busy(
                f"cannot log: over {MAX_FREE_SOURCES} different sources since the start; use a script's or `cli`"
            )
        self._free_sources.add(source)
        self._strangers_sources += stranger

    def script_list(self, params: Nothing, caller: Caller) -> Row:
        return {"scripts": list(self._supervisor.rows())}

    def script_show(self, params: Name, caller: Caller) -> Row:
        data = dict(self._supervisor.show(params.name))
        definition = dict(data.get("definition") or {})
        if caller.access < Access.OWNER and definition.get("env"):
            definition["env"] = dict.fromkeys(definition["env"], MASK)
        if caller.access < Access.OPERATOR:
            data["lastLines"] = []  # reading output is logs:tail's right
        return {**data, "definition": definition}

    def script_start(self, params: Name, caller: Caller) -> Row:
        return self._supervisor.start(params.name)

    def script_stop(self, params: Name, caller: Caller) -> Row:
        return self._supervisor.stop(params.name)

    def script_restart(self, params: Name, caller: Caller) -> Row:
        return self._supervisor.restart(params.name)

    def script_add(self, params: Mapping[str, Any], caller: Caller) -> Row:
        return self._supervisor.add(parse_script(params))

    def script_update(self, params: Update, caller: Caller) -> Row:
        if not params.fields:
            raise BadRequest("cannot run script:update: no fields; name what changes")
        return self._supervisor.update(params.name, params.fields)

    def script_remove(self, params: Name, caller: Caller) -> Row:
        return self._supervisor.remove(params.name)

    def logs_tail(self, params: Tail, caller: Caller) -> Row | Stream:
        source = self._find_source(params.name)
        lines = max(0, params.lines)
        if not params.follow:
            return {"entries": list(self._shipper.tail(source, lines))}
        # No other greenlet runs between these two: no entry is missed, none comes twice.
        follower = self._shipper.follow(source)
        return Stream(_follow(self._shipper.tail(source, lines), follower, self._services.wall), follower.close)

    def _find_source(self, name: str | None) -> str | None:
        """Return the source that a script's or a source's name means.

        Raises:
            NotFound: no script has it, and nothing was logged under it.
        """
        if name is None:
            return None
        rows = self._supervisor.rows()
        for row in rows:
            if row["name"] == name:
                return str(row["source"])
        if any(row["source"] == name for row in rows) or self._shipper.tail(name, 1):
            return name
        raise NotFound(f"Script not found: {name[:64]}{nearest(name, (row['name'] for row in rows))}")

    def buffer_flush(self, params: Nothing, caller: Caller) -> Row:
        return {**msgspec.to_builtins(self._shipper.flush_now()), "link": self._link()}

    def reload(self, params: Nothing, caller: Caller) -> Row:
        return dict(self._services.agent.reload())


def _follow(past: Sequence[Row], follower: FollowerLike, wall: Callable[[], float]) -> Generator[Sequence[Row]]:
    """Yield entries as they come, several at a time; says in an entry of its own when some were skipped."""
    try:
        if past:  # whoever wants a part of it has to know where it ends
            yield [{"entry": entry, "pastLeft": len(past) - n} for n, entry in enumerate(past, start=1)]
        told = 0
        while entries := follower.next():
            if follower.lost > told:
                skipped, told = follower.lost - told, follower.lost
                yield [{"entry": _skipped(skipped, _timestamp(wall()))}]
            yield [{"entry": entry} for entry in entries]
    finally:
        follower.close()


def _skipped(count: int, timestamp: str) -> Row:
    return {
        "timestamp": timestamp,
        "level": "warn",
        "message": f"{count} entries are not shown: they came faster than they were read",
        "source": "orion-agent",
        "stream": "agent",
    }


def _timestamp(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
