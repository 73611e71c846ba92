"""Owns alerts, from devices and from rules over log entries, and the rules themselves.

Knows nothing of HTTP; who is told of an alert is decided by the caller.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orionagent.console.store import Store, iso
from orionagent.errors import BadRequest, NotFound
from orionagent.wire import Alert

SILENCES = {"2h": 2 * 3600, "4h": 4 * 3600, "12h": 12 * 3600, None: None}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Fire when `threshold` entries of `level` come within `window_seconds`, from one source or any."""

    name: str
    level: str
    threshold: int
    window_seconds: int
    source_id: int | None
    channels: Sequence[Mapping[str, Any]]
    enabled: bool


class Alarms:
    """Alerts and rules of all projects. Sole writer of both tables."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- alerts ------------------------------------------------------------------------------------------

    def take_alert(self, project_id: int, alert: Alert) -> int | None:
        """Keep a crash alert; return its id, None when it came before."""
        try:
            return self._add(
                project_id,
                device_id=alert.id,
                rule_name=f"{alert.script} crashed",
                source_name=alert.source,
                hostname=alert.hostname,
                level="error",
                message=alert.message,
                details=msgspec.json.encode(alert).decode(),
            )
        except sqlite3.IntegrityError:
            return None

    def _add(
        self,
        project_id: int,
        *,
        rule_name: str,
        source_name: str,
        hostname: str | None,
        level: str,
        message: str,
        device_id: str | None = None,
        rule_id: int | None = None,
        details: str | None = None,
    ) -> int:
        return self._store.insert(
            "INSERT INTO alerts (project_id, device_id, rule_id, rule_name, source_name, server_hostname,"
            " level, message, status, created_at, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'active', ?, ?)",
            *(project_id, device_id, rule_id, rule_name, source_name, hostname, level, message),
            *(self._store.now(), details),
        )

    def alerts(
        self, project_id: int, *, status: str = "", level: str = "", source: str = "", limit: int = 500
    ) -> list[dict[str, Any]]:
        """Return alerts in the clients' shape, newest first; empty filters mean "any"."""
        self._end_silences()
        rows = self._store.all(
            "SELECT * FROM alerts WHERE project_id = ? AND ? IN ('', status) AND ? IN ('', level)"
            " AND ? IN ('', source_name) ORDER BY id DESC LIMIT ?",
            *(project_id, status, level, source, limit),
        )
        return [alert_shape(row) for row in rows]

    def alert(self, project_id: int, alert_id: int) -> dict[str, Any]:
        """Return one alert in the clients' shape.

        Raises:
            NotFound: this project has no such alert.
        """
        row = self._store.one("SELECT * FROM alerts WHERE project_id = ? AND id = ?", project_id, alert_id)
        if row is None:
            raise NotFound(f"cannot find alert {alert_id}: this project has none of this number")
        return alert_shape(row)

    def _end_silences(self) -> None:
        self._store.run(
            "UPDATE alerts SET status = 'active', silenced_until = NULL"
            " WHERE status = 'silenced' AND silenced_until < ?",
            self._store.now(),
        )

    def silence(self, project_id: int, alert_id: int, duration: str | None) -> None:
        """Silence an alert for 2h, 4h, 12h or without end (None); its rule does not fire meanwhile.

        Raises:
            NotFound: this project has no such alert.
            BadRequest: another duration.
        """
        if duration not in SILENCES:
            raise BadRequest(f"cannot silence: duration {duration!r} is none of 2h, 4h, 12h, null")
        self.alert(project_id, alert_id)
        seconds = SILENCES[duration]
        self._store.run(
            "UPDATE alerts SET status = 'silenced', silenced_until = ? WHERE id = ? AND status != 'resolved'",
            *(None if seconds is None else self._store.now() + seconds, alert_id),
        )

    def resolve(self, project_id: int, alert_id: int, by_pseudo: str) -> None:
        """Mark an alert as dealt with.

        Raises:
            NotFound: this project has no such alert.
        """
        self.alert(project_id, alert_id)
        self._store.run(
            "UPDATE alerts SET status = 'resolved', silenced_until = NULL, resolved_at = ?,"
            " resolved_by_pseudo = ? WHERE id = ? AND status != 'resolved'",
            *(self._store.now(), by_pseudo, alert_id),
        )

    def delete(self, project_id: int, alert_id: int) -> None:
        """Delete an alert; deleting one that is gone is fine."""
        self._store.run("DELETE FROM alerts WHERE project_id = ? AND id = ?", project_id, alert_id)

    # -- rules -------------------------------------------------------------------------------------------

    def rules(self, project_id: int) -> list[dict[str, Any]]:
        """Return the rules in the clients' shape."""
        rows = self._store.all(f"{_RULES} WHERE rules.project_id = ? ORDER BY rules.id", project_id)
        return [rule_shape(row) for row in rows]

    def rule(self, project_id: int, rule_id: int) -> dict[str, Any]:
        """Return one rule in the clients' shape.

        Raises:
            NotFound: this project has no such rule.
        """
        row = self._store.one(f"{_RULES} WHERE rules.project_id = ? AND rules.id = ?", project_id, rule_id)
        if row is None:
            raise NotFound(f"cannot find rule {rule_id}: this project has none of this number")
        return rule_shape(row)

    def put_rule(self, project_id: int, rule: Rule, rule_id: int | None = None) -> int:
        """Add a rule, or replace the one of this id; return its id.

        Raises:
            BadRequest: an impossible threshold, window or channel.
        """
        if not rule.name.strip() or rule.threshold < 1 or not 1 <= rule.window_seconds <= 86400:
            raise BadRequest(
                "cannot save the rule: it needs a name, a threshold of 1 or more, a window of 1 to 86400 s"
            )
        channels = [_channel(number, channel) for number, channel in enumerate(rule.channels, 1)]
        values = (
            *(rule.name.strip(), rule.level, rule.threshold, rule.window_seconds, rule.source_id),
            *(rule.enabled, msgspec.json.encode(channels).decode()),
        )
        if rule_id is not None:
            self._store.run(
                "UPDATE rules SET name = ?, level = ?, threshold = ?, window_seconds = ?, source_id = ?,"
                " enabled = ?, channels = ? WHERE id = ? AND project_id = ?",
                *(*values, rule_id, project_id),
            )
            return rule_id
        return self._store.insert(
            "INSERT INTO rules (name, level, threshold, window_seconds, source_id, enabled, channels,"
            " project_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(*values, project_id, self._store.now()),
        )

    def delete_rule(self, project_id: int, rule_id: int) -> None:
        """Delete a rule; its alerts stay."""
        self._store.run("DELETE FROM rules WHERE project_id = ? AND id = ?", project_id, rule_id)

    def fire_rules(
        self, project_id: int, arrived: set[tuple[int, str]], hostname: str | None
    ) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Check the rules that `arrived` (source id, level) concerns; return (new alert, its channels).

        A rule fires at most once a window, and not while an alert of it is silenced.
        """
        fired = []
        for row in self._store.all(f"{_RULES} WHERE rules.project_id = ? AND enabled", project_id):
            source_ids = {
                source_id
                for source_id, level in arrived
                if level == row["level"] and row["source_id"] in (None, source_id)
            }
            if source_ids and self._is_due(row, project_id):
                now = self._store.now()
                name = self._store.scalar("SELECT name FROM sources WHERE id = ?", min(source_ids))
                self._store.run("UPDATE rules SET fired_at = ? WHERE id = ?", now, row["id"])
                alert_id = self._add(
                    project_id,
                    rule_id=row["id"],
                    rule_name=row["name"],
                    source_name=row["source_name"] or name,
                    hostname=hostname,
                    level=row["level"],
                    message=f"{row['threshold']} or more {row['level']} entries in {row['window_seconds']} s",
                )
                fired.append((self.alert(project_id, alert_id), msgspec.json.decode(row["channels"])))
        return fired

    def _is_due(self, rule: sqlite3.Row, project_id: int) -> bool:
        now = self._store.now()
        if rule["fired_at"] is not None and now - rule["fired_at"] < rule["window_seconds"]:
            return False
        self._end_silences()
        if self._store.one("SELECT 1 FROM alerts WHERE rule_id = ? AND status = 'silenced'", rule["id"]):
            return False
        count = self._store.scalar(
            "SELECT count(*) FROM (SELECT 1 FROM logs JOIN sources ON sources.id = logs.source_id"
            " WHERE sources.project_id = ? AND (? IS NULL OR sources.id = ?) AND at >= ? AND level = ?"
            " LIMIT ?)",
            *(project_id, rule["source_id"], rule["source_id"], (now - rule["window_seconds"]) * 1000),
            *(rule["level"], rule["threshold"]),
        )
        return bool(count >= rule["threshold"])


_RULES = "SELECT rules.*, sources.name AS source_name FROM rules LEFT JOIN sources ON sources.id = source_id"


def _channel(number: int, channel: Mapping[str, Any]) -> dict[str, Any]:
    kind, target = channel.get("type"), channel.get("target")
    if kind not in ("email", "webhook") or not isinstance(target, str):
        raise BadRequest("cannot save the rule: a channel needs type email or webhook, and a target")
    if kind == "webhook" and not target.startswith(("http://", "https://")):
        raise BadRequest("cannot save the rule: a webhook's target begins with http:// or https://")
    return {"id": number, "type": kind, "target": target}


def alert_shape(row: sqlite3.Row) -> dict[str, Any]:
    """Return an alert in the clients' shape (beyond it: details, what the device sent)."""
    return {
        "id": row["id"],
        "rule_name": row["rule_name"],
        "source_name": row["source_name"],
        "server_hostname": row["server_hostname"],
        "level": row["level"],
        "message": row["message"],
        "status": row["status"],
        "silenced_until": iso(row["silenced_until"]),
        "resolved_at": iso(row["resolved_at"]),
        "resolved_by_pseudo": row["resolved_by_pseudo"],
        "created_at": iso(row["created_at"]),
        "details": None if row["details"] is None else msgspec.Raw(row["details"].encode()),
    }


def rule_shape(row: sqlite3.Row) -> dict[str, Any]:
    """Return a rule in the clients' shape."""
    return {
        "id": row["id"],
        "name": row["name"],
        "level": row["level"],
        "threshold": row["threshold"],
        "window_seconds": row["window_seconds"],
        "source_id": row["source_id"],
        "source_name": row["source_name"],
        "enabled": bool(row["enabled"]),
        "created_at": iso(row["created_at"]),
        "channels": msgspec.json.decode(row["channels"]),
    }
