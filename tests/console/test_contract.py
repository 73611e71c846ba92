"""Every route that the public clients cannot do without: method, path, status and the exact shape of its answer."""

import re
from typing import Any, NamedTuple

import pytest

from tests.console.listening import Listener
from tests.console.process import ConsoleProcess
from tests.console.shapes import Iso, differs, one_of
from tests.console.test_device import heartbeat

SOURCE_STATUS = (None, one_of("started", "partial", "stopped"))
SERVER_STATUS = one_of("online", "partial", "offline", "archived")
LEVELS = ("info", "warn", "error", "debug", "verbose", "trace")
COUNTS = dict.fromkeys(LEVELS, int) | {"total": int}
BUCKET = {"bucket_start": Iso} | dict.fromkeys(LEVELS, int)

USER = {
    "id": int, "email": str, "first_name": str, "last_name": str, "pseudo": str, "name": str,
    "avatar_url": (None, str), "theme": one_of("dark", "light", "system"), "totp_enabled": bool,
    "email_2fa_enabled": bool, "notifications_email": bool, "email_verified": bool,
    "plan?": one_of("free", "pro", "enterprise"), "created_at": Iso, "updated_at": Iso,
}  # fmt: skip
PROJECT = {"id": int, "name": str, "label": str, "role": one_of("owner", "member")}
SOURCE = {"name": str, "description": str, "environment": str}
SERVER = {
    "id": int, "hostname": str, "name": (None, str), "ip": (None, str), "last_seen_at": (None, Iso),
    "status": SERVER_STATUS, "source_count": int,
}  # fmt: skip
PLACE = {"name": str, "environment": str, "status": SOURCE_STATUS, "last_ping_at": (None, Iso)}
COMMAND = {
    "id": int, "type": one_of("restart", "stop", "start"), "status": one_of("pending", "ack", "failed"),
    "created_at": Iso, "acked_at": (None, Iso), "source_name": (None, str),
}  # fmt: skip
LOG = {
    "id": str, "timestamp": Iso, "level": str, "message": str, "source": str, "server": (None, str),
    "metadata": (None, dict), "tags": [str],
}  # fmt: skip
ALERT = {
    "id": int, "rule_name": str, "source_name": str, "server_hostname": (None, str), "level": str,
    "message": (None, str), "status": one_of("active", "silenced", "resolved"), "silenced_until": (None, Iso),
    "resolved_at": (None, Iso), "resolved_by_pseudo": (None, str), "created_at": Iso,
}  # fmt: skip
RULE = {
    "id": int, "name": str, "level": str, "threshold": int, "window_seconds": int, "source_id": (None, int),
    "source_name": (None, str), "enabled": bool, "created_at": Iso,
    "channels": [{"type": one_of("email", "webhook"), "target": str}],
}  # fmt: skip
SETTINGS = {
    "ok": bool, "name": str, "label": str, "created_at": Iso, "enabled_levels": [str], "role": str,
    "effective_permissions": [str],
}  # fmt: skip
PROJECT_STATS = {
    "uptime_percent": (None, float), "sources_uptime": [{"source": str, "uptime_percent": (None, float)}],
    "log_counts": COUNTS, "chart_data": [BUCKET],
}  # fmt: skip
SOURCE_STATS = {
    "uptime_percent": (None, float), "log_counts": COUNTS, "error_rate": float, "chart_data": [BUCKET],
    "server": (None, {"hostname": str, "ip": (None, str), "name": (None, str)}), "environment": (None, str),
    "recent_errors": [{"id": str, "message": (None, str), "created_at": Iso}],
    "performance": (None, {"avg_cpu": float, "avg_memory_used": float, "avg_memory_total": float,
                           "last_uptime_seconds": float}),
    "status": SOURCE_STATUS, "last_seen_at": (None, Iso),
}  # fmt: skip
CLI_PERMISSIONS = ["logs:write", "heartbeat:write", "performance:write", "commands:write", "commands:read"]
NEW_TOKEN = {
    "id": int, "name": str, "token": str, "token_prefix": str, "permissions": [str], "source_name": (None, str),
    "created_at": Iso,
}  # fmt: skip
NEW_RULE = {
    "name": "r", "level": "error", "threshold": None, "window_seconds": 60, "source_name": None,
    "channels": [{"type": "webhook", "target": "http://127.0.0.1:9/hook"}], "enabled": True,
}  # fmt: skip
PERSON = {
    "firstName": "A", "lastName": "B", "pseudo": "new", "email": "new@example.org", "password": "long enough",
}  # fmt: skip
ANYTHING = None


class Row(NamedTuple):
    """One route; `{...}` in path and body stand for what `Site` holds, `token` for whose call it is."""

    method: str
    path: str
    status: int
    shape: Any
    body: Any = None
    token: str = "user"
    filled: str = ""
    """The part of the answer that must not be empty, so that the shape inside it is really looked at."""


P = "/api/projects/{project}"
ROWS = [
    Row("POST", "/api/auth/register", 201, {"accessToken": str, "user": USER}, PERSON, token="nobody"),
    Row("POST", "/api/auth/login", 200, {"accessToken": str, "user": USER},
        {"email": "known@example.org", "password": "long enough"}, token="stale"),
    Row("GET", "/api/auth/me", 200, USER | {"user": USER}),
    Row("POST", "/api/auth/cli/init", 200, {"state": str, "loginUrl": str}, {"callbackPort": 7777}, token="nobody"),
    Row("POST", "/api/auth/cli/confirm", 200, {"callbackPort": int, "token": str}, {"state": "{state}"}),
    Row("GET", "/api/projects", 200, [PROJECT], filled="[]"),
    Row("POST", "/api/projects", 201, {"id": int, "name": str, "label": str, "token": str},
        {"name": "{project}-two", "label": "", "memberEmails": []}),
    Row("GET", f"{P}/settings", 200, SETTINGS, filled="effective_permissions"),
    Row("POST", f"{P}/tokens", 201, NEW_TOKEN, {"name": "api SDK", "permissions": CLI_PERMISSIONS, "source": "api"}),
    Row("POST", f"{P}/tokens", 201, NEW_TOKEN, {"name": "t", "permissions": ["logs:write", "logs:read"]}),
    Row("GET", f"{P}/sources", 200, {"sources": [SOURCE]}, filled="sources"),
    Row("POST", f"{P}/sources", 201, {"name": str}, {"name": "new_one", "environment": "prod"}),
    Row("GET", f"{P}/sources/api/logs", 200, [LOG], filled="[]"),
    Row("GET", f"{P}/sources/all/logs", 200, [LOG], filled="[]"),
    Row("GET", f"{P}/sources/api/stats", 200, SOURCE_STATS, filled="recent_errors"),
    Row("GET", f"{P}/sources/api/stats?window=7d", 200, SOURCE_STATS, filled="chart_data"),
    Row("GET", f"{P}/servers", 200, {"servers": [SERVER]}, filled="servers"),
    Row("GET", f"{P}/servers/{{host}}", 200,
        {"server": SERVER | {"sources": [PLACE], "uptime_percent": (None, float)}}),
    Row("GET", f"{P}/servers/{{host}}/commands", 200, {"commands": [COMMAND]}, filled="commands"),
    Row("POST", f"{P}/servers/{{host}}/commands", 201, {"command": COMMAND}, {"type": "stop", "source": "api"}),
    Row("POST", f"{P}/servers/{{host}}/commands", 201, {"command": COMMAND}, {"type": "start"}),
    Row("GET", f"{P}/logs?search=broke&level=error%2Cfatal&source=api&server={{host}}&limit=10", 200, [LOG],
        filled="[]"),
    Row("GET", f"{P}/logs/export?format=json&limit=10", 200, [LOG], filled="[]"),
    Row("GET", f"{P}/logs/export?format=csv&limit=0", 200, ANYTHING),
    Row("GET", f"{P}/tags", 200, {"tags": [str]}, filled="tags"),
    Row("GET", f"{P}/stats?window=24h", 200, PROJECT_STATS, filled="chart_data"),
    Row("GET", f"{P}/heartbeats", 200,
        {"heartbeats": [{"source": str, "status": SOURCE_STATUS, "last_ping_at": (None, Iso),
                         "interval_seconds": int}]}, filled="heartbeats"),
    Row("GET", f"{P}/alerts?status=active", 200, [ALERT], filled="[]"),
    Row("POST", f"{P}/alerts/{{alert}}/silence", 200, ALERT, {"duration": "4h"}),
    Row("POST", f"{P}/alerts/{{alert}}/silence", 200, ALERT, {"duration": None}),
    Row("POST", f"{P}/alerts/{{alert}}/resolve", 200, ALERT),
    Row("DELETE", f"{P}/alerts/{{alert}}", 200, {}),
    Row("GET", f"{P}/alerts/rules", 200, [RULE], filled="[]"),
    Row("POST", f"{P}/alerts/rules", 201, RULE, NEW_RULE),
    Row("PUT", f"{P}/alerts/rules/{{rule}}", 200, RULE, {"enabled": False}),
    Row("PUT", f"{P}/alerts/rules/{{rule}}", 200, RULE, NEW_RULE | {"name": "other", "threshold": 5}),
    Row("DELETE", f"{P}/alerts/rules/{{rule}}", 200, {}),
    Row("POST", f"{P}/alerts/rules/{{rule}}/test", 200, {"ok": bool}),
    Row("POST", "/api/ws/create", 200, {"url": str}, {"projectName": "{project}"}),
    Row("POST", "/api/v1/agent/log", 201, ANYTHING,
        {"timestamp": "2026-01-02T03:04:05.678Z", "level": "info", "message": "m", "metadata": {"a": 1}, "tags": ["x"]},
        token="device"),
    Row("POST", "/api/logs/heartbeat", 204, ANYTHING, {"hostname": "{host}", "ip": "10.0.0.1"}, token="device"),
    Row("GET", "/api/logs/commands?hostname={host}", 200,
        {"commands": [{"id": int, "type": one_of("restart", "stop", "start")}]}, token="device", filled="commands"),
    Row("POST", "/api/logs/commands/{command}/ack?hostname={host}", 200, ANYTHING, token="device"),
    Row("POST", "/api/logs/performance", 204, ANYTHING,
        {"message": "p", "cpu": 130.5, "memory_used_bytes": 1, "memory_total_bytes": 2, "uptime_seconds": 3},
        token="device"),
]  # fmt: skip


class Site:
    """A project in which everything exists once, and the names of it."""

    numbers = iter(range(10_000))

    def __init__(self, console: ConsoleProcess) -> None:
        number = next(self.numbers)
        user = console.token
        name = f"site-{number}"
        console.post("/api/projects", {"name": name, "label": "Site"}, token=user)
        base = f"/api/projects/{name}"
        console.post(f"{base}/sources", {"name": "api", "environment": "prod"}, token=user)
        console.post(f"{base}/sources", {"name": "quiet", "environment": "dev", "description": "d"}, token=user)
        sdk = {"name": "t", "permissions": CLI_PERMISSIONS, "source": "api"}
        device = console.post(f"{base}/tokens", sdk, token=user)["token"]
        unbound = console.post(f"{base}/tokens", {**sdk, "source": None}, token=user)["token"]
        host = "web-1"
        scripts = [{"name": "api", "source": "api", "state": "running"}]
        console.post("/api/v1/agent/heartbeat", heartbeat(hostname=host, scripts=scripts), token=unbound)
        entry = {"level": "error", "message": "it broke", "metadata": {"order": 1}, "tags": ["shop"]}
        console.post("/api/v1/agent/log", entry, token=device)
        rule = console.post(f"{base}/alerts/rules", NEW_RULE | {"threshold": 99}, token=user)["id"]
        crash = {"id": "1", "timestamp": "", "hostname": host, "script": "api", "source": "api", "message": "m"}
        console.post("/api/v1/agent/alert", crash | {"cause": "unknown"}, token=unbound)
        command = console.post(f"{base}/servers/{host}/commands", {"type": "restart", "source": "api"}, token=user)
        self.tokens = {"user": user, "device": device, "nobody": "", "stale": "gone"}
        self.names = {
            "project": name,
            "host": host,
            "rule": str(rule),
            "alert": str(console.get(f"{base}/alerts", token=user)[0]["id"]),
            "command": str(command["command"]["id"]),
            "state": console.post("/api/auth/cli/init", {"callbackPort": 7777}, token="")["state"],
        }

    def fill(self, value: Any) -> Any:
        """Put the site's names into a path or body."""
        if isinstance(value, dict):
            return {name: self.fill(each) for name, each in value.items()}
        if isinstance(value, str):
            for name, text in self.names.items():
                value = value.replace("{" + name + "}", text)
        return value


@pytest.fixture(scope="module", autouse=True)
def somebody(console: ConsoleProcess) -> None:
    """Have one account, for the route of signing in."""
    console.post("/api/auth/register", PERSON | {"pseudo": "known", "email": "known@example.org"}, token="")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path.partition('?')[0]}")
def test_a_route_that_clients_need_answers_in_their_shape(console: ConsoleProcess, row: Row) -> None:
    site = Site(console)
    reply = console.call(row.method, site.fill(row.path), site.fill(row.body), token=site.tokens[row.token])
    assert reply.status_code == row.status, reply.text
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    if row.shape is ANYTHING:
        return
    assert reply.headers["Content-Type"] == "application/json"
    data = reply.json()
    assert differs(data, row.shape) == ""
    # A truthy `error` in a success would count as a failure with the clients.
    assert not (isinstance(data, dict) and data.get("error"))
    if row.filled:
        assert len(data if row.filled == "[]" else data[row.filled]) > 0


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.token in ("user", "device")],
    ids=lambda row: f"{row.method} {row.path.partition('?')[0]}",
)
def test_a_route_without_a_valid_token_is_401_with_both_texts(console: ConsoleProcess, row: Row) -> None:
    path = re.sub(r"\{\w+\}", "1", row.path)
    for token in ("", "gone"):
        reply = console.call(row.method, path, None, token=token)
        assert reply.status_code == 401
        assert differs(reply.json(), {"error": str, "message": str}) == ""
        assert reply.json()["error"]
        assert reply.headers["Access-Control-Allow-Origin"] == "*"


def test_the_form_for_a_new_project_finds_none_called_new(console: ConsoleProcess) -> None:
    site = Site(console)
    for method, path, body in (
        ("GET", "/api/projects/new/sources", None),
        ("GET", "/api/projects/new/servers", None),
        ("GET", "/api/projects/new/settings", None),
        ("POST", "/api/ws/create", {"projectName": "new"}),
    ):
        reply = console.call(method, path, body, token=site.tokens["user"])
        assert reply.status_code == 404
        assert reply.json()["error"]


MESSAGES = {
    "log": {"id": str, "timestamp": Iso, "message": str, "level": str, "source": str, "project": str},
    "performance": {"source": str, "cpu": float, "memory_used": float, "memory_total": float, "uptime_seconds": float},
    "heartbeat": {"source": str, "status": SOURCE_STATUS, "last_ping_at": (None, Iso), "projectName": str},
    "alert": ALERT,
    "stats_update": {"projectName": str},
    "server_status": {"serverId": int, "hostname": str, "status": SERVER_STATUS, "sources": [PLACE],
                      "projectName": str},
    "command_status": {"commandId": int, "hostname": str, "type": str, "status": one_of("ack", "failed"),
                       "source_name": (None, str), "acked_at": (None, Iso)},
}  # fmt: skip


def test_every_live_message_has_its_shape(console: ConsoleProcess) -> None:
    site = Site(console)
    device, host = site.tokens["device"], site.names["host"]
    url = console.post("/api/ws/create", {"projectName": site.names["project"]}, token=site.tokens["user"])["url"]
    rule = f"/api/projects/{site.names['project']}/alerts/rules"
    console.post(rule, NEW_RULE | {"threshold": 1, "channels": []}, token=site.tokens["user"])
    with Listener(url) as listener:
        seen: dict[str, Any] = {}
        console.call("POST", "/api/v1/agent/log", {"level": "error", "message": "again"}, token=device)
        for kind in ("log", "stats_update", "alert"):
            seen[kind] = listener.wait_for(kind)
        console.call("POST", "/api/logs/heartbeat", {"hostname": host}, token=device)
        for kind in ("server_status", "heartbeat"):
            seen[kind] = listener.wait_for(kind)
        figures = {"cpu": 1.5, "memory_used_bytes": 1, "memory_total_bytes": 2, "uptime_seconds": 3}
        console.call("POST", "/api/logs/performance", figures, token=device)
        seen["performance"] = listener.wait_for("performance")
        ack = f"/api/logs/commands/{site.names['command']}/ack?hostname={host}"
        console.call("POST", ack, token=device)
        seen["command_status"] = listener.wait_for("command_status")
    assert {kind: differs(payload, MESSAGES[kind]) for kind, payload in seen.items()} == dict.fromkeys(MESSAGES, "")


@pytest.mark.parametrize(
    ("value", "shape", "word"),
    [
        ({"a": 1}, {"a": int, "b": str}, "b is missing"),
        ({"a": True}, {"a": int}, "no int"),
        ({"a": "1"}, {"a": float}, "no float"),
        ([{"at": "2026-01-02 03:04:05"}], [{"at": Iso}], r"\[0\].at"),
        ("running", SOURCE_STATUS, "none of"),
        ({}, [LOG], "no array"),
    ],
)
def test_a_shape_tells_what_differs(value: Any, shape: Any, word: str) -> None:
    assert re.search(word, differs(value, shape))
