"""Owns what is told live: the payloads of the seven messages that the clients know, and our own two.

Knows nothing of sockets or of HTTP.
"""

import sqlite3
from typing import Any

import msgspec

from orionagent.console.accounts import Accounts
from orionagent.console.alarms import Alarms
from orionagent.console.commands import Commands
from orionagent.console.fleet import Fleet
from orionagent.console.live import Channel
from orionagent.console.logbook import Logbook, Stored
from orionagent.console.reader import Reader
from orionagent.console.secret import Attempts
from orionagent.console.store import Store, iso
from orionagent.console.tokens import Tokens
from orionagent.wire import Heartbeat

STATS_EVERY_S = 5.0


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a route may need."""

    store: Store
    accounts: Accounts
    tokens: Tokens
    fleet: Fleet
    commands: Commands
    logbook: Logbook
    reader: Reader
    alarms: Alarms
    channel: Channel
    attempts: Attempts
    news: "News"
    dashboard: str | None
    """Origin of a dashboard served elsewhere, for sign-in addresses; None: this console's own pages."""


class News:
    """Tells the listeners of a project what just happened. Keeps nothing but its throttle."""

    def __init__(self, store: Store, accounts: Accounts, fleet: Fleet, channel: Channel) -> None:
        self._store = store
        self._accounts = accounts
        self._fleet = fleet
        self._channel = channel
        self._stats_told: dict[str, float] = {}

    def logs(self, project_id: int, stored: Stored, hostname: str | None) -> None:
        """Tell of new entries, and now and then that the statistics moved."""
        project = self._accounts.project_name(project_id)
        if not stored.kept or not self._channel.has_listeners(project):
            return
        names = {source_id: self._fleet.source_name(source_id) for _, source_id, _ in stored.kept}
        self._channel.tell(
            project,
            "log",
            [
                {
                    "id": str(stored.first_id + number),
                    "timestamp": iso(at / 1000),
                    "level": entry.level,
                    "message": entry.message,
                    "source": names[source_id],
                    "project": project,
                    "server": hostname,
                    "metadata": entry.metadata if bytes(entry.metadata) else None,
                    "tags": entry.tags or (),
                    "stream": entry.stream,
                }
                for number, (entry, source_id, at) in enumerate(stored.kept)
            ],
        )
        now = self._store.now()
        if now - self._stats_told.get(project, 0.0) >= STATS_EVERY_S:
            self._stats_told[project] = now
            self._channel.tell(project, "stats_update", [{"projectName": project}])

    def server(self, project_id: int, server_id: int, beat: Heartbeat | None = None) -> None:
        """Tell a server's status with its sources, and with a heartbeat its figures (message `host`)."""
        project = self._accounts.project_name(project_id)
        row = self._store.one("SELECT * FROM servers WHERE id = ?", server_id)
        if row is None:
            return
        status = self._fleet.server_status(row)
        self._store.run("UPDATE servers SET announced = ? WHERE id = ?", status, server_id)
        if not self._channel.has_listeners(project):
            return
        places = self._fleet.placements(server_id=server_id)
        self._channel.tell(
            project,
            "server_status",
            [
                {
                    "serverId": server_id,
                    "hostname": row["hostname"],
                    "status": status,
                    "sources": [place_shape(place) for place in places],
                    "projectName": project,
                }
            ],
        )
        self._channel.tell(
            project,
            "heartbeat",
            [
                {
                    "source": place["name"],
                    "status": place["status"],
                    "last_ping_at": iso(place["last_ping_at"]),
                    "projectName": project,
                }
                for place in places
            ],
        )
        if beat is not None:
            self._channel.tell(project, "host", [{"hostname": beat.hostname, "report": beat}])

    def changed_servers(self) -> None:
        """Tell of servers whose status changed by silence alone."""
        for row in self._store.all("SELECT * FROM servers"):
            if self._fleet.server_status(row) != row["announced"]:
                self.server(row["project_id"], row["id"])

    def performance(self, project_id: int, source: str, figures: dict[str, float]) -> None:
        """Tell an old SDK's process figures."""
        project = self._accounts.project_name(project_id)
        self._channel.tell(project, "performance", [{"source": source, **figures}])

    def alert(self, project_id: int, alert: dict[str, Any]) -> None:
        """Tell of a new alert."""
        self._channel.tell(self._accounts.project_name(project_id), "alert", [alert])

    def command(self, row: sqlite3.Row) -> None:
        """Tell that a command was carried out or failed."""
        payload = {
            "commandId": row["id"],
            "hostname": row["hostname"],
            "type": row["type"],
            "status": row["status"],
            "source_name": row["source_name"],
            "acked_at": iso(row["acked_at"]),
        }
        self._channel.tell(self._accounts.project_name(row["project_id"]), "command_status", [payload])


def place_shape(place: dict[str, Any]) -> dict[str, Any]:
    """Return where a source runs in the clients' shape."""
    return {
        "name": place["name"],
        "environment": place["environment"],
        "status": place["status"],
        "last_ping_at": iso(place["last_ping_at"]),
    }
