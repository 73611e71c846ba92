"""Owns the routes of alerts and of the rules that raise them.

Knows nothing of crash reports or entries.
"""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from werkzeug.wrappers import Response

from orionagent.console.alarms import Rule
from orionagent.console.http import Call, answer
from orionagent.console.news import Services
from orionagent.console.store import iso
from orionagent.console.webhook import notify
from orionagent.errors import BadRequest, NotFound


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """For how long; null is without end."""

    duration: str | None = None


class RuleForm(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, or with some fields only a change to one."""

    name: str | UnsetType = UNSET
    level: str | UnsetType = UNSET
    threshold: int | UnsetType | None = UNSET
    window_seconds: int | UnsetType = UNSET
    source_name: str | UnsetType | None = UNSET
    channels: list[dict[str, Any]] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


def list_alerts(to: Services, call: Call, project: str) -> Response:
    """Return alerts, newest first, as a bare array."""
    found = to.accounts.project(call.user, project)
    status, level, source = (call.query.get(name, "") for name in ("status", "level", "source"))
    return answer(to.alarms.alerts(found.id, status=status, level=level, source=source))


def silence_alert(to: Services, call: Call, project: str, number: int) -> Response:
    """Silence one alert."""
    found = to.accounts.project(call.user, project)
    to.alarms.silence(found.id, number, call.json(Silence).duration)
    return answer(to.alarms.alert(found.id, number))


def resolve_alert(to: Services, call: Call, project: str, number: int) -> Response:
    """Mark one alert as dealt with."""
    found = to.accounts.project(call.user, project)
    to.alarms.resolve(found.id, number, call.user.pseudo)
    return answer(to.alarms.alert(found.id, number))


def delete_alert(to: Services, call: Call, project: str, number: int) -> Response:
    """Delete one alert."""
    to.alarms.delete(to.accounts.project(call.user, project).id, number)
    return answer({})


def list_rules(to: Services, call: Call, project: str) -> Response:
    """Return the rules as a bare array."""
    return answer(to.alarms.rules(to.accounts.project(call.user, project).id))


def add_rule(to: Services, call: Call, project: str) -> Response:
    """Create a rule."""
    found = to.accounts.project(call.user, project)
    rule_id = to.alarms.put_rule(found.id, _read_rule(to, found.id, call.json(RuleForm), {}))
    return answer(to.alarms.rule(found.id, rule_id), 201)


def change_rule(to: Services, call: Call, project: str, number: int) -> Response:
    """Change a rule: what the body does not name stays."""
    found = to.accounts.project(call.user, project)
    current = to.alarms.rule(found.id, number)
    to.alarms.put_rule(found.id, _read_rule(to, found.id, call.json(RuleForm), current), number)
    return answer(to.alarms.rule(found.id, number))


def delete_rule(to: Services, call: Call, project: str, number: int) -> Response:
    """Delete a rule."""
    to.alarms.delete_rule(to.accounts.project(call.user, project).id, number)
    return answer({})


def test_rule(to: Services, call: Call, project: str, number: int) -> Response:
    """Post a sample alert to the rule's webhooks."""
    rule = to.alarms.rule(to.accounts.project(call.user, project).id, number)
    sample = {
        "id": 0,
        "rule_name": rule["name"],
        "source_name": rule["source_name"] or "all",
        "server_hostname": None,
        "level": rule["level"],
        "message": "This is a test of the rule's channels.",
        "status": "active",
        "silenced_until": None,
        "resolved_at": None,
        "resolved_by_pseudo": None,
        "created_at": iso(to.store.now()),
        "test": True,
    }
    notify(rule["channels"], sample)
    return answer({"ok": True})


def _read_rule(to: Services, project_id: int, form: RuleForm, current: dict[str, Any]) -> Rule:
    # An emptied number field arrives as null: the smallest threshold is what is meant.
    said = {name: value for name, value in msgspec.structs.asdict(form).items() if value is not UNSET}
    merged: dict[str, Any] = {"level": "error", "threshold": 1, "window_seconds": 300, "enabled": True} | current | said
    if not merged.get("name"):
        raise BadRequest("cannot save the rule: it needs a name")
    source_id = None
    if merged.get("source_name") is not None:
        source_id = to.fleet.find_source(project_id, merged["source_name"])
        if source_id is None:
            raise NotFound(f"cannot save the rule: this project has no source {merged['source_name']!r}")
    return Rule(
        name=merged["name"],
        level=merged["level"],
        threshold=merged["threshold"] or 1,
        window_seconds=merged["window_seconds"],
        source_id=source_id,
        channels=merged.get("channels") or [],
        enabled=merged["enabled"],
    )
