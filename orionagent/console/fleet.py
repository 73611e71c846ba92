"""Owns servers, sources, which script runs where, and their states over time.

Knows nothing of HTTP, log entries, commands or who may look.
"""

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from orionagent.console.store import Store
from orionagent.errors import BadRequest, Exists, NotFound
from orionagent.wire import Heartbeat

SOURCE_NAME = re.compile(r"[a-z0-9_-]{1,64}")
ENVIRONMENTS = ("prod", "dev", "staging", "test")
SILENT_AFTER_S = 90.0
ARCHIVED_AFTER_S = 30 * 86400.0


class Fleet:
    """What the devices report. Sole writer of servers, sources, deployments, samples, pings, performance."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- sources -----------------------------------------------------------------------------------------

    def sources(self, project_id: int) -> list[sqlite3.Row]:
        """Return the project's sources by name."""
        return self._store.all("SELECT * FROM sources WHERE project_id = ? ORDER BY name", project_id)

    def find_source(self, project_id: int, name: str) -> int | None:
        """Return a source's id."""
        found = self._store.scalar("SELECT id FROM sources WHERE project_id = ? AND name = ?", project_id, name)
        return None if found is None else int(found)

    def source_name(self, source_id: int) -> str:
        """Return the name of a source that exists."""
        return str(self._store.scalar("SELECT name FROM sources WHERE id = ?", source_id))

    def add_source(self, project_id: int, name: str, description: str, environment: str) -> int:
        """Create a source and return its id.

        Raises:
            BadRequest: name or environment is not valid.
            Exists: the name is taken in this project.
        """
        if SOURCE_NAME.fullmatch(name) is None or name == "all":
            raise BadRequest(f"cannot create source {name!r}: not a valid name; use lowercase letters, digits, - and _")
        if environment not in ENVIRONMENTS:
            raise BadRequest(
                f"cannot create source {name!r}: environment {environment!r} is none of " + ", ".join(ENVIRONMENTS)
            )
        try:
            return self._store.insert(
                "INSERT INTO sources (project_id, name, description, environment, created_at) VALUES (?, ?, ?, ?, ?)",
                *(project_id, name, description, environment, self._store.now()),
            )
        except sqlite3.IntegrityError as error:
            raise Exists(f"cannot create source {name!r}: this name is taken; choose another") from error

    def source_for(self, project_id: int, said: str | None) -> int:
        """Return the source an unbound device speaks of, made on first sight; unusable names are mended."""
        name = re.sub(r"[^a-z0-9_-]+", "-", (said or "").lower())[:64] or "agent"
        if name == "all":
            name = "all-"
        found = self.find_source(project_id, name)
        return self.add_source(project_id, name, "", "prod") if found is None else found

    def delete_source(self, project_id: int, source_id: int) -> None:
        """Delete a source, its entries and everything counted of it; one that is gone is fine."""
        with self._store.transaction():
            own = "(SELECT id FROM sources WHERE project_id = ? AND id = ?)"
            self._store.run(f"DELETE FROM logs WHERE source_id IN {own}", project_id, source_id)  # noqa: S608
            self._store.run("DELETE FROM sources WHERE project_id = ? AND id = ?", project_id, source_id)

    # -- heartbeats --------------------------------------------------------------------------------------

    def server_id(self, project_id: int, hostname: str) -> int | None:
        """Return a server's id."""
        found = self._store.scalar("SELECT id FROM servers WHERE project_id = ? AND hostname = ?", project_id, hostname)
        return None if found is None else int(found)

    def touch(self, project_id: int, hostname: str, *, ip: str | None = None, stopped: bool = False) -> int:
        """Note that a host was heard of now; return its id, made on first sight."""
        now = self._store.now()
        row = self._store.one("SELECT * FROM servers WHERE project_id = ? AND hostname = ?", project_id, hostname)
        if row is None:
            return self._store.insert(
                "INSERT INTO servers (project_id, hostname, ip, created_at, last_seen_at, stopped)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                *(project_id, hostname, ip, now, now, stopped),
            )
        # The gap between heartbeats tells their interval, which no body names; a longer silence is none.
        gap = now - (row["last_seen_at"] or now)
        gap = gap if 1 < gap < 3600 and not row["stopped"] else row["gap_s"]
        self._store.run(
            "UPDATE servers SET ip = coalesce(?, ip), last_seen_at = ?, gap_s = ?, stopped = ? WHERE id = ?",
            *(ip, now, gap, stopped, row["id"]),
        )
        return int(row["id"])

    def mention(self, project_id: int, hostname: str) -> int:
        """Return the id of a host that entries name; unlike `touch` this is no sign of life of an agent."""
        found = self.server_id(project_id, hostname)
        if found is not None:
            return found
        return self._store.insert(
            "INSERT INTO servers (project_id, hostname, created_at) VALUES (?, ?, ?)",
            *(project_id, hostname, self._store.now()),
        )

    def host_of(self, source_id: int) -> tuple[int | None, str | None]:
        """Return (id, hostname) of the server a source was last seen on."""
        row = self._store.one(
            "SELECT servers.id, hostname FROM deployments JOIN servers ON servers.id = server_id"
            " WHERE source_id = ? ORDER BY last_ping_at DESC LIMIT 1",
            source_id,
        )
        return (None, None) if row is None else (row["id"], row["hostname"])

    def take_heartbeat(self, project_id: int, beat: Heartbeat, *, ip: str | None) -> int:
        """Keep an agent's heartbeat: last report, sample, script states; return the server's id."""
        store, now = self._store, self._store.now()
        with store.transaction():
            server_id = self.touch(project_id, beat.hostname, ip=ip, stopped=beat.stopping)
            store.run("UPDATE servers SET report = ? WHERE id = ?", msgspec.json.encode(beat).decode(), server_id)
            store.run(
                "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)",
                server_id,
                now,
                beat.cpu.percent if beat.cpu else None,
                beat.memory.percent if beat.memory else None,
                beat.disk.percent if beat.disk else None,
                beat.network.rxBytesPerSecond if beat.network else None,
                beat.network.txBytesPerSecond if beat.network else None,
            )
            # The agent names every script each time: what it no longer names is gone.
            store.run("DELETE FROM deployments WHERE server_id = ?", server_id)
            for script in beat.scripts:
                source_id = self.source_for(project_id, script.source)
                state = "stopped" if beat.stopping else script.state
                self._deploy(server_id, source_id, script.name, state)
        return server_id

    def take_ping(self, project_id: int, source_id: int, hostname: str, ip: str | None) -> int:
        """Keep an old SDK's heartbeat: this source runs on this host; return the server's id."""
        with self._store.transaction():
            server_id = self.touch(project_id, hostname, ip=ip)
            self._deploy(server_id, source_id, "", "running")
        return server_id

    def _deploy(self, server_id: int, source_id: int, script: str, state: str) -> None:
        now = self._store.now()
        self._store.run(
            "INSERT OR REPLACE INTO deployments VALUES (?, ?, ?, ?, ?)",
            *(server_id, source_id, script, state, now),
        )
        self._store.run(
            "INSERT INTO pings VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET up = max(up, excluded.up)",
            *(source_id, int(now // 60), state == "running"),
        )

    def take_performance(self, source_id: int, cpu: float, used: float, total: float, uptime: float) -> None:
        """Keep an old SDK's process figures (percent, bytes, bytes, seconds)."""
        self._store.run(
            "INSERT OR REPLACE INTO performance VALUES (?, ?, ?, ?, ?, ?)",
            *(source_id, self._store.now(), cpu, used, total, uptime),
        )

    # -- reading -----------------------------------------------------------------------------------------

    def server_rows(self, project_id: int) -> list[sqlite3.Row]:
        """Return the project's servers by hostname."""
        return self._store.all("SELECT * FROM servers WHERE project_id = ? ORDER BY hostname", project_id)

    def server_row(self, project_id: int, hostname: str) -> sqlite3.Row:
        """Return one server.

        Raises:
            NotFound: no heartbeat ever came from there.
        """
        row = self._store.one("SELECT * FROM servers WHERE project_id = ? AND hostname = ?", project_id, hostname)
        if row is None:
            raise NotFound(f"cannot find server {hostname!r}: no heartbeat came from it yet")
        return row

    def is_silent(self, row: sqlite3.Row) -> bool:
        """Tell whether a server has missed three heartbeats (at least 90 s), or said that it stops."""
        last = row["last_seen_at"]
        return bool(last is None or row["stopped"] or self._store.now() - last > max(SILENT_AFTER_S, 3 * row["gap_s"]))

    def server_status(self, row: sqlite3.Row) -> str:
        """Return online, partial (some script is down), offline or archived (silent for 30 days)."""
        if self.is_silent(row):
            last = row["last_seen_at"] or row["created_at"]
            return "archived" if self._store.now() - last > ARCHIVED_AFTER_S else "offline"
        down = self._store.scalar(
            "SELECT count(*) FROM deployments WHERE server_id = ? AND state != 'running'", row["id"]
        )
        return "partial" if down else "online"

    def placements(self, *, server_id: int | None = None, project_id: int | None = None) -> list[dict[str, Any]]:
        """Return which source runs where: {source_id, name, environment, hostname, status, last_ping_at}.

        Status is started, stopped, or partial where several scripts of one source disagree.
        """
        rows = self._store.all(
            "SELECT source_id, server_id, sources.name, environment, hostname, state, last_ping_at,"
            " servers.last_seen_at, servers.gap_s, servers.stopped, servers.ip, servers.name AS server_name"
            " FROM deployments JOIN sources ON sources.id = source_id JOIN servers ON servers.id = server_id"
            " WHERE (? IS NULL OR server_id = ?) AND (? IS NULL OR servers.project_id = ?)"
            " ORDER BY sources.name, hostname, script",
            *(server_id, server_id, project_id, project_id),
        )
        now = self._store.now()
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for row in rows:
            fresh = now - row["last_ping_at"] <= max(SILENT_AFTER_S, 3 * row["gap_s"])
            status = "started" if row["state"] == "running" and fresh and not self.is_silent(row) else "stopped"
            place = found.setdefault(
                (row["source_id"], row["server_id"]),
                {
                    "source_id": row["source_id"],
                    "name": row["name"],
                    "environment": row["environment"],
                    "hostname": row["hostname"],
                    "ip": row["ip"],
                    "server_name": row["server_name"],
                    "status": status,
                    "last_ping_at": row["last_ping_at"],
                },
            )
            place["status"] = merge_status((place["status"], status))
            place["last_ping_at"] = max(place["last_ping_at"], row["last_ping_at"])
        return list(found.values())

    def samples(self, server_id: int, since_s: float) -> list[list[float | None]]:
        """Return [Unix seconds, cpu %, memory %, disk %, received B/s, sent B/s] rows, oldest first."""
        rows = self._store.all(
            "SELECT at, cpu, memory, disk, rx, tx FROM samples WHERE server_id = ? AND at >= ? ORDER BY at",
            *(server_id, since_s),
        )
        return [list(row) for row in rows]

    def uptime_percent(self, source_ids: Sequence[int], since_s: float) -> float | None:
        """Return the share of minutes with news in which the sources ran; None without any news.

        Minutes of silence between the first news and now count as down.
        """
        up = expected = 0
        this_minute = int(self._store.now() // 60)
        for source_id in source_ids:
            first, minutes_up = self._store.run(
                "SELECT min(minute), total(up) FROM pings WHERE source_id = ? AND minute >= ?",
                *(source_id, int(since_s // 60)),
            ).fetchone()
            if first is not None:
                interval = max(1, round(self._minutes_between(source_id)))
                expected += this_minute - first + 1
                up += min(this_minute - first + 1, minutes_up * interval)
        return round(100 * up / expected, 2) if expected else None

    def _minutes_between(self, source_id: int) -> float:
        gap = self._store.scalar(
            "SELECT max(gap_s) FROM servers JOIN deployments ON server_id = servers.id WHERE source_id = ?",
            source_id,
        )
        return float(gap or 30) / 60

    def performance(self, source_id: int) -> dict[str, float] | None:
        """Return an old SDK's figures averaged over the last two minutes; None without any."""
        row = self._store.one(
            "SELECT avg(cpu) AS cpu, avg(memory_used) AS used, avg(memory_total) AS total,"
            " max(uptime_seconds) AS uptime, count(*) AS count FROM performance"
            " WHERE source_id = ? AND at >= ?",
            *(source_id, self._store.now() - 120),
        )
        if row is None or not row["count"]:
            return None
        return {
            "avg_cpu": round(row["cpu"], 2),
            "avg_memory_used": round(row["used"]),
            "avg_memory_total": round(row["total"]),
            "last_uptime_seconds": round(row["uptime"]),
        }


def merge_status(statuses: Sequence[str]) -> str:
    """Return one status for several: all started, all stopped, else partial."""
    return statuses[0] if len(set(statuses)) == 1 else "partial"
