"""Owns the routes that people's pages read: servers, commands, entries, tags, the live channel's ticket.

Knows nothing of how devices report; every project route checks that the caller sees the project.
"""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from werkzeug.wrappers import Response

from orionagent.console.accounts import Project
from orionagent.console.commands import command_shape
from orionagent.console.http import Call, answer
from orionagent.console.logbook import SEARCH_LIMIT, Filter
from orionagent.console.news import Services, place_shape
from orionagent.console.store import iso
from orionagent.errors import BadRequest, NotFound

RECENT_ENTRIES = 500


class NewCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A press of start, stop or restart; without a source it means the whole server."""

    type: str
    source: str | None = None


class TicketRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which project a live channel is for."""

    projectName: str


def _source_id(to: Services, project: Project, name: str) -> int:
    found = to.fleet.find_source(project.id, name)
    if found is None:
        raise NotFound(f"cannot find source {name!r}: this project has none of this name")
    return found


# -- servers and commands ---------------------------------------------------------------------------------


def _server_summary(to: Services, row: Any, source_count: int) -> dict[str, Any]:
    return {
        "id": row["id"],
        "hostname": row["hostname"],
        "name": row["name"],
        "ip": row["ip"],
        "last_seen_at": iso(row["last_seen_at"]),
        "status": to.fleet.server_status(row),
        "source_count": source_count,
        "report": None if row["report"] is None else msgspec.Raw(row["report"].encode()),
    }


def list_servers(to: Services, call: Call, project: str) -> Response:
    """Return the project's servers; beyond the clients' shape, each with its last heartbeat as `report`."""
    found = to.accounts.project(call.user, project)
    places = to.fleet.placements(project_id=found.id)
    return answer(
        {
            "servers": [
                _server_summary(to, row, sum(place["hostname"] == row["hostname"] for place in places))
                for row in to.fleet.server_rows(found.id)
            ]
        }
    )


def show_server(to: Services, call: Call, project: str, hostname: str) -> Response:
    """Return one server with its sources."""
    found = to.accounts.project(call.user, project)
    row = to.fleet.server_row(found.id, hostname)
    places = to.fleet.placements(server_id=row["id"])
    day_ago = to.store.now() - 86400
    return answer(
        {
            "server": {
                **_server_summary(to, row, len(places)),
                "sources": [place_shape(place) for place in places],
                "uptime_percent": to.fleet.uptime_percent([place["source_id"] for place in places], day_ago),
            }
        }
    )


def list_samples(to: Services, call: Call, project: str, hostname: str) -> Response:
    """Return what the charts draw: [Unix s, cpu %, memory %, disk %, rx B/s, tx B/s] rows (our own route)."""
    found = to.accounts.project(call.user, project)
    row = to.fleet.server_row(found.id, hostname)
    minutes = call.number("minutes", 60, 1, 24 * 60)
    return answer({"samples": to.fleet.samples(row["id"], to.store.now() - minutes * 60)})


def list_commands(to: Services, call: Call, project: str, hostname: str) -> Response:
    """Return a server's commands, newest first."""
    found = to.accounts.project(call.user, project)
    row = to.fleet.server_row(found.id, hostname)
    return answer({"commands": [command_shape(each) for each in to.commands.of_server(row["id"])]})


def add_command(to: Services, call: Call, project: str, hostname: str) -> Response:
    """Queue a command; the device takes it with its next heartbeat."""
    found = to.accounts.project(call.user, project)
    wanted = call.json(NewCommand)
    row = to.fleet.server_row(found.id, hostname)
    source_id = None if wanted.source is None else _source_id(to, found, wanted.source)
    command_id = to.commands.add(row["id"], wanted.type, source_id)
    shape = next(each for each in to.commands.of_server(row["id"]) if each["id"] == command_id)
    return answer({"command": command_shape(shape)}, 201)


# -- entries ----------------------------------------------------------------------------------------------


def recent_logs(to: Services, call: Call, project: str, source: str) -> Response:
    """Return the newest entries of one source, or of `all`, oldest first."""
    found = to.accounts.project(call.user, project)
    if source == "all":
        source_ids = [row["id"] for row in to.fleet.sources(found.id)]
    else:
        source_ids = [_source_id(to, found, source)]
    return answer(to.logbook.search(Filter(source_ids=source_ids, limit=RECENT_ENTRIES)))


def _filter(to: Services, call: Call, project: Project, limit: int) -> Filter:
    named = call.words("source")
    source_ids = [row["id"] for row in to.fleet.sources(project.id) if not named or row["name"] in named]
    return Filter(
        source_ids=source_ids,
        levels=call.words("level"),
        servers=call.words("server"),
        tags=call.words("tags"),
        text=call.query.get("search", "").strip(),
        from_ms=_day(call.query.get("from"), 0),
        until_ms=_day(call.query.get("to"), 1),
        before_id=call.number("before", 0, 1, 2**53) or None,
        limit=limit,
    )


def _day(text: str | None, add_days: int) -> int | None:
    if not text:
        return None
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) is None:
        raise BadRequest(f"cannot use the date {text!r}: write it as YYYY-MM-DD")
    try:
        day = datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=add_days)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"cannot use the date {text!r}: there is no such day") from error
    return int(day.timestamp() * 1000)


def search_logs(to: Services, call: Call, project: str) -> Response:
    """Return the newest entries that match, oldest first. Days are UTC; `to` includes its day."""
    found = to.accounts.project(call.user, project)
    limit = call.number("limit", 500, 0, SEARCH_LIMIT)
    return answer(to.logbook.search(_filter(to, call, found, limit)))


def export_logs(to: Services, call: Call, project: str) -> Response:
    """Return the same as a file, csv or json."""
    found = to.accounts.project(call.user, project)
    kind = call.query.get("format", "json")
    if kind not in ("csv", "json"):
        raise BadRequest(f"cannot export as {kind!r}: format is csv or json")
    entries = to.logbook.search(_filter(to, call, found, call.number("limit", 500, 0, SEARCH_LIMIT)))
    response = answer(entries) if kind == "json" else Response(_csv(entries), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{found.name}-logs.{kind}"'
    return response


def _csv(entries: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("timestamp", "level", "source", "server", "message", "tags", "metadata"))
    for entry in entries:
        tags = msgspec.json.decode(entry["tags"]) if entry["tags"] else []
        metadata = bytes(entry["metadata"]).decode() if entry["metadata"] is not None else ""
        cells = (entry["timestamp"], entry["level"], entry["source"], entry["server"] or "", entry["message"])
        writer.writerow([_cell(cell) for cell in (*cells, " ".join(tags), metadata)])
    return text.getvalue()


def _cell(text: str) -> str:
    # A spreadsheet would compute what begins like a formula: https://owasp.org/www-community/attacks/CSV_Injection
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def list_tags(to: Services, call: Call, project: str) -> Response:
    """Return the tags in use."""
    return answer({"tags": to.logbook.tags(to.accounts.project(call.user, project).id)})


# -- live -------------------------------------------------------------------------------------------------


def create_ticket(to: Services, call: Call) -> Response:
    """Return the address of a live channel, good for one connection within a minute."""
    project = to.accounts.project(call.user, call.json(TicketRequest).projectName)
    scheme = "wss" if call.request.scheme == "https" else "ws"
    ticket = to.channel.issue_ticket(project.name)
    return answer({"url": f"{scheme}://{call.request.host}/api/ws?ticket={ticket}"})
