"""Owns remote commands: queued by people, fetched and acknowledged by devices, failed when nobody answers.

Knows nothing of HTTP or of what carrying one out means.
"""

import sqlite3
from typing import Any

from orionagent.console.store import Store, iso
from orionagent.errors import BadRequest, NotFound

TYPES = ("restart", "stop", "start")
DEADLINE_S = 120.0

_SELECT = (
    "SELECT commands.id, type, status, commands.created_at, acked_at, hostname, servers.project_id,"
    " sources.name AS source_name FROM commands JOIN servers ON servers.id = server_id"
    " LEFT JOIN sources ON sources.id = source_id"
)


class Commands:
    """The commands of all projects. Sole writer of their table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, server_id: int, kind: str, source_id: int | None) -> int:
        """Queue a command for the device; the same one pending already is not queued twice.

        Raises:
            BadRequest: kind is none of restart, stop, start.
        """
        if kind not in TYPES:
            raise BadRequest(f"cannot send command {kind!r}: it is none of restart, stop, start")
        pending = self._store.scalar(
            "SELECT id FROM commands WHERE server_id = ? AND source_id IS ? AND type = ? AND status = 'pending'",
            *(server_id, source_id, kind),
        )
        if pending is not None:
            return int(pending)
        return self._store.insert(
            "INSERT INTO commands (server_id, source_id, type, status, created_at) VALUES (?, ?, ?, 'pending', ?)",
            *(server_id, source_id, kind, self._store.now()),
        )

    def pending(self, server_id: int, source_id: int | None) -> list[dict[str, Any]]:
        """Return what the device is to do; one bound to a source sees its own and the whole server's."""
        rows = self._store.all(
            f"{_SELECT} WHERE server_id = ? AND status = 'pending'"
            " AND (? IS NULL OR source_id IS NULL OR source_id = ?) ORDER BY commands.id",
            *(server_id, source_id, source_id),
        )
        return [{"id": row["id"], "type": row["type"], "source": row["source_name"]} for row in rows]

    def settle(self, project_id: int, command_id: int, hostname: str | None, *, ok: bool) -> sqlite3.Row | None:
        """Mark a pending command as done or failed; return its row, None when it was settled before.

        Raises:
            NotFound: this project has no such command (for this host).
        """
        row = self._store.one(
            f"{_SELECT} WHERE servers.project_id = ? AND commands.id = ? AND (? IS NULL OR hostname = ?)",
            *(project_id, command_id, hostname, hostname),
        )
        if row is None:
            raise NotFound(f"cannot acknowledge command {command_id}: there is none for this host")
        if row["status"] != "pending":
            return None
        self._store.run(
            "UPDATE commands SET status = ?, acked_at = ? WHERE id = ?",
            *("ack" if ok else "failed", self._store.now(), command_id),
        )
        return self._store.one(f"{_SELECT} WHERE commands.id = ?", command_id)

    def overdue(self) -> list[sqlite3.Row]:
        """Return the pending commands that nobody will answer: four heartbeats old, at least two minutes."""
        return self._store.all(
            f"{_SELECT} WHERE status = 'pending' AND commands.created_at < ? - max(?, 4 * servers.gap_s)",
            *(self._store.now(), DEADLINE_S),
        )

    def of_server(self, server_id: int, limit: int = 100) -> list[sqlite3.Row]:
        """Return a server's commands, newest first."""
        return self._store.all(f"{_SELECT} WHERE server_id = ? ORDER BY commands.id DESC LIMIT ?", server_id, limit)


def command_shape(row: sqlite3.Row) -> dict[str, Any]:
    """Return a command in the clients' shape."""
    return {
        "id": row["id"],
        "type": row["type"],
        "status": row["status"],
        "created_at": iso(row["created_at"]),
        "acked_at": iso(row["acked_at"]),
        "source_name": row["source_name"],
    }
