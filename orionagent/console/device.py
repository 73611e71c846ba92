"""Owns the routes that agents and SDKs call: heartbeats, entries, alerts, commands.

Knows nothing of people or pages; both generations of paths end in the same functions.
"""

from typing import Any

import msgspec
from werkzeug.wrappers import Response

from orionagent.console.http import Call, answer
from orionagent.console.logbook import NewEntry, Stored
from orionagent.console.news import Services
from orionagent.console.store import iso
from orionagent.console.tokens import Device
from orionagent.console.webhook import notify
from orionagent.errors import BadRequest, NotPermitted, OrionError
from orionagent.wire import Alert, Heartbeat

MAX_ENTRIES = 50_000

_ENTRY_LINES = msgspec.json.Decoder(NewEntry)
_HEARTBEAT = msgspec.json.Decoder(Heartbeat)


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended; without a body it was carried out."""

    ok: bool = True
    status: str = "ack"


class Ping(msgspec.Struct, frozen=True, kw_only=True):
    """An old SDK's heartbeat."""

    hostname: str
    ip: str | None = None


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """An old SDK's process figures: percent (above 100 on several cores), bytes, bytes, seconds."""

    cpu: float
    memory_used_bytes: float
    memory_total_bytes: float
    uptime_seconds: float
    message: str = ""


def _require(device: Device, permission: str) -> None:
    if permission not in device.permissions:
        raise NotPermitted(f"cannot do this: the token lacks the permission {permission}; make another token")


def _hostname(text: str | None) -> str:
    if not text or len(text) > 253 or any(ord(char) < 33 for char in text):
        raise BadRequest("cannot tell the server: hostname must be 1 to 253 characters without spaces")
    return text


def take_heartbeat(to: Services, call: Call) -> Response:
    """Keep an agent's heartbeat; answer with the commands that wait for it."""
    _require(call.device, "heartbeat:write")
    try:
        beat = _HEARTBEAT.decode(call.body())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"cannot read the heartbeat: {error}") from error
    _hostname(beat.hostname)
    server_id = to.fleet.take_heartbeat(call.device.project_id, beat, ip=call.ip)
    to.news.server(call.device.project_id, server_id, beat)
    commands = to.commands.pending(server_id, call.device.source_id)
    return answer({"commands": commands, "serverTime": iso(to.store.now())})


def take_entries(to: Services, call: Call) -> Response:
    """Keep NDJSON entries; those known by (Orion-Instance, seq) are skipped.

    All or nothing: one entry that cannot be read refuses the request with its line number.
    """
    _require(call.device, "logs:write")
    body = call.body()
    try:
        entries = _ENTRY_LINES.decode_lines(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"cannot read the entries: {error}{_bad_line(body)}") from error
    if len(entries) > MAX_ENTRIES:
        raise OrionError(f"cannot take over {MAX_ENTRIES} entries; send fewer", code="too-large")
    headers = call.request.headers
    stored = _keep(to, call, entries, headers.get("Orion-Hostname"), headers.get("Orion-Instance"))
    return answer({"stored": len(stored.kept), "duplicates": stored.duplicates, "dropped": stored.dropped})


def _bad_line(body: bytes) -> str:
    for number, line in enumerate(body.splitlines(), 1):
        if line.strip():
            try:
                _ENTRY_LINES.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return f" (line {number})"
    return ""


def take_entry(to: Services, call: Call) -> Response:
    """Keep one entry, as SDKs and agents of the single-entry kind send it."""
    _require(call.device, "logs:write")
    entry = call.json(NewEntry)
    headers = call.request.headers
    _keep(to, call, [entry], headers.get("Orion-Hostname"), headers.get("Orion-Instance"))
    return answer({"ok": True}, 201)


def _keep(to: Services, call: Call, entries: list[NewEntry], hostname: str | None, instance: str | None) -> Stored:
    device = call.device
    said = {entry.source for entry in entries}
    server_id = None
    with to.store.transaction():
        if device.source_id is not None:
            source_ids = dict.fromkeys(said, device.source_id)
        else:
            source_ids = {name: to.fleet.source_for(device.project_id, name) for name in said}
        if hostname:
            server_id = to.fleet.mention(device.project_id, _hostname(hostname))
        elif device.source_id is not None:
            server_id, hostname = to.fleet.host_of(device.source_id)
        stored = to.logbook.add(
            device.project_id,
            entries,
            source_ids,
            server_id=server_id,
            instance=instance,
            levels=to.accounts.enabled_levels(device.project_id),
        )
    to.news.logs(device.project_id, stored, hostname)
    arrived = {(source_id, entry.level) for entry, source_id, _ in stored.kept}
    for alert, channels in to.alarms.fire_rules(device.project_id, arrived, hostname):
        to.news.alert(device.project_id, alert)
        notify(channels, alert)
    return stored


def take_alert(to: Services, call: Call) -> Response:
    """Keep a crash alert; the same id again is fine and changes nothing."""
    _require(call.device, "logs:write")
    alert = call.json(Alert)
    device = call.device
    with to.store.transaction():
        if device.source_id is None:
            to.fleet.source_for(device.project_id, alert.source)
        alert_id = to.alarms.take_alert(device.project_id, alert)
    if alert_id is not None:
        to.news.alert(device.project_id, to.alarms.alert(device.project_id, alert_id))
    return answer({"ok": True, "duplicate": alert_id is None})


def list_commands(to: Services, call: Call) -> Response:
    """Return the commands that wait for this host (and, with a bound token, this source)."""
    _require(call.device, "commands:read")
    server_id = to.fleet.server_id(call.device.project_id, _hostname(call.query.get("hostname")))
    commands = [] if server_id is None else to.commands.pending(server_id, call.device.source_id)
    return answer({"commands": commands})


def settle_command(to: Services, call: Call, number: int) -> Response:
    """Note how a command ended; a second acknowledgement changes nothing."""
    _require(call.device, "commands:write")
    ack = call.json(Ack)
    row = to.commands.settle(
        call.device.project_id, number, call.query.get("hostname"), ok=ack.ok and ack.status != "failed"
    )
    if row is not None:
        to.news.command(row)
    return answer({"ok": True})


def take_old_heartbeat(to: Services, call: Call) -> Response:
    """Keep an SDK 1.5 heartbeat; it asks for its commands only after exactly 204."""
    _require(call.device, "heartbeat:write")
    ping = call.json(Ping)
    device = call.device
    source_id = device.source_id or to.fleet.source_for(device.project_id, None)
    server_id = to.fleet.take_ping(device.project_id, source_id, _hostname(ping.hostname), ping.ip or call.ip)
    to.news.server(device.project_id, server_id)
    return answer(status=204)


def take_performance(to: Services, call: Call) -> Response:
    """Keep an SDK 1.5 process report."""
    _require(call.device, "performance:write")
    figures = call.json(Performance)
    device = call.device
    source_id = device.source_id or to.fleet.source_for(device.project_id, None)
    values = (figures.cpu, figures.memory_used_bytes, figures.memory_total_bytes, figures.uptime_seconds)
    to.fleet.take_performance(source_id, *values)
    told: dict[str, Any] = dict(zip(("cpu", "memory_used", "memory_total", "uptime_seconds"), values, strict=True))
    to.news.performance(device.project_id, to.fleet.source_name(source_id), told)
    return answer(status=204)
