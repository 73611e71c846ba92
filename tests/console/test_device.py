"""What agents and SDKs send arrives once, is read back as sent, and is refused by name when it is wrong."""

import gzip
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from orionagent.console.http import error_answer
from tests.console.process import ConsoleProcess

Project = tuple[str, str]


def entry(seq: int, **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "timestamp": f"2026-01-02T03:04:{seq % 60:02}.500Z",
        "level": "info",
        "message": f"line {seq}",
        "source": "api",
        "stream": "stdout",
    } | fields


def send(console: ConsoleProcess, token: str, entries: list[Any], **headers: str) -> Any:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = b"".join(msgspec.json.encode(each) + b"\n" for each in entries)
    if headers.get("Content-Encoding") == "gzip":
        raw = gzip.compress(raw)
    return console.call("POST", "/api/v1/agent/logs", raw=raw, headers=headers, token=token)


def heartbeat(**fields: Any) -> dict[str, Any]:
    return {
        "hostname": "web-1",
        "agentVersion": "1.0",
        "bootId": "boot",
        "timestamp": "2026-01-02T03:04:05.000Z",
    } | fields


def test_entries_are_read_back_as_they_were_sent(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    special = entry(2, level="error", metadata={"a": [1, None, "ü"]}, tags=["deploy"], partial=True)
    answer = send(
        console,
        token,
        [entry(1), special],
        Orion_Instance="i",
        Orion_Hostname="web-1",
        Content_Encoding="gzip",
    )
    assert answer.json() == {"stored": 2, "duplicates": 0, "dropped": 0}
    plain, rich = console.get(f"/api/projects/{name}/logs")
    assert plain["message"] == "line 1"
    assert plain["server"] == "web-1"
    assert rich["timestamp"] == "2026-01-02T03:04:02.500Z"
    assert rich["metadata"] == {"a": [1, None, "ü"]}
    assert rich["tags"] == ["deploy"]
    assert rich["partial"] is True
    assert console.get(f"/api/projects/{name}/tags") == {"tags": ["deploy"]}


def test_entries_sent_again_are_kept_once(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    send(console, token, [entry(1), entry(2)], Orion_Instance="i")
    again = send(console, token, [entry(2), entry(3), entry(3)], Orion_Instance="i")
    assert again.json() == {"stored": 1, "duplicates": 2, "dropped": 0}
    other = send(console, token, [entry(1)], Orion_Instance="another-buffer")
    assert other.json()["stored"] == 1
    assert len(console.get(f"/api/projects/{name}/logs")) == 4
    assert console.get(f"/api/projects/{name}/stats?window=30d")["log_counts"]["total"] == 0  # dated long ago


def test_one_bad_entry_refuses_the_request_and_names_its_line(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    answer = send(console, token, [entry(1), entry(2, message=7)], Orion_Instance="i")
    assert answer.status_code == 400
    assert "line 2" in answer.json()["error"]
    assert console.get(f"/api/projects/{name}/logs") == []


def test_a_time_that_nobody_can_write_counts_as_unreadable(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    odd = ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59.9999Z", "garbage")
    edges = ("0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.000Z")
    entries = [entry(seq, timestamp=text) for seq, text in enumerate((*odd, *edges))]
    assert send(console, token, entries, Orion_Instance="i").json()["stored"] == 6
    times = {each["message"]: each["timestamp"] for each in console.get(f"/api/projects/{name}/logs")}
    assert tuple(times[each["message"]] for each in entries[4:]) == edges
    for each in entries[:4]:
        received = datetime.fromisoformat(times[each["message"]])
        assert abs(received - datetime.now(UTC)) < timedelta(minutes=5)


def test_entries_of_a_bound_token_belong_to_its_source(console: ConsoleProcess, project: Project) -> None:
    name, _ = project
    console.post(f"/api/projects/{name}/sources", {"name": "web", "environment": "staging"})
    made = console.post(
        f"/api/projects/{name}/tokens", {"name": "web SDK", "permissions": ["logs:write"], "source": "web"}
    )
    assert made["token"].startswith(made["token_prefix"])
    reply = console.call(
        "POST",
        "/api/v1/agent/log",
        {"timestamp": "2026-01-01T00:00:00Z", "level": "warn", "message": "m", "source": "other"},
        token=made["token"],
    )
    assert reply.ok
    assert [each["source"] for each in console.get(f"/api/projects/{name}/logs")] == ["web"]
    refused = console.call("POST", "/api/v1/agent/heartbeat", heartbeat(), token=made["token"])
    assert refused.status_code == 403
    assert "heartbeat:write" in refused.json()["message"]


def test_a_heartbeat_makes_server_sources_and_samples(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    scripts = [
        {"name": "api", "source": "api", "state": "running", "pid": 7},
        {"name": "worker", "source": "worker", "state": "crashed", "restarts": 3},
    ]
    body = heartbeat(cpu={"percent": 12.5}, memory={"percent": 40.0}, scripts=scripts)
    answer = console.post("/api/v1/agent/heartbeat", body, token=token)
    assert answer["commands"] == []
    (server,) = console.get(f"/api/projects/{name}/servers")["servers"]
    assert (server["hostname"], server["status"], server["source_count"]) == ("web-1", "partial", 2)
    assert server["report"]["scripts"][1]["restarts"] == 3
    detail = console.get(f"/api/projects/{name}/servers/web-1")["server"]
    assert [(each["name"], each["status"]) for each in detail["sources"]] == [
        ("api", "started"),
        ("worker", "stopped"),
    ]
    ((_, cpu, memory, disk, _, _),) = console.get(f"/api/projects/{name}/servers/web-1/samples")["samples"]
    assert (cpu, memory, disk) == (12.5, 40.0, None)


def test_a_stopping_heartbeat_takes_the_server_offline(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    scripts = [{"name": "api", "source": "api", "state": "running"}]
    console.post("/api/v1/agent/heartbeat", heartbeat(scripts=scripts, stopping=True), token=token)
    (server,) = console.get(f"/api/projects/{name}/servers")["servers"]
    assert server["status"] == "offline"


def test_a_command_travels_to_the_device_and_back(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    scripts = [{"name": "api", "source": "api", "state": "running"}]
    console.post("/api/v1/agent/heartbeat", heartbeat(scripts=scripts), token=token)
    path = f"/api/projects/{name}/servers/web-1/commands"
    first = console.post(path, {"type": "restart", "source": "api"})["command"]
    assert (first["status"], first["acked_at"], first["source_name"]) == ("pending", None, "api")
    assert console.post(path, {"type": "restart", "source": "api"})["command"]["id"] == first["id"]
    assert console.call("POST", path, {"type": "explode"}).status_code == 400
    expected = [{"id": first["id"], "type": "restart", "source": "api"}]
    reply = console.call("GET", "/api/v1/agent/commands?hostname=web-1", token=token)
    assert reply.json() == {"commands": expected}
    assert console.post("/api/v1/agent/heartbeat", heartbeat(), token=token)["commands"] == expected
    ack = f"/api/v1/agent/commands/{first['id']}/ack"
    assert console.call("POST", f"{ack}?hostname=elsewhere", token=token).status_code == 404
    for _ in range(2):
        assert console.call("POST", f"{ack}?hostname=web-1", token=token).ok
    (command,) = console.get(path)["commands"]
    assert command["status"] == "ack"
    assert command["acked_at"] is not None


def test_a_crash_alert_is_kept_once(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    alert = {
        "id": "boot:1",
        "timestamp": "2026-01-02T03:04:05.000Z",
        "hostname": "web-1",
        "script": "api",
        "source": "api",
        "message": "api exited with status 3",
        "cause": "exit",
        "exitCode": 3,
        "lastLines": ["Traceback", "boom"],
    }
    assert console.post("/api/v1/agent/alert", alert, token=token)["duplicate"] is False
    assert console.post("/api/v1/agent/alert", alert, token=token)["duplicate"] is True
    (kept,) = console.get(f"/api/projects/{name}/alerts?status=active")
    assert kept["message"] == "api exited with status 3"
    assert kept["details"]["lastLines"] == ["Traceback", "boom"]


def test_device_routes_want_a_token(console: ConsoleProcess) -> None:
    for token in ("", "wrong"):
        answer = console.call("POST", "/api/v1/agent/log", {"level": "info", "message": "m"}, token=token)
        assert answer.status_code == 401
        assert answer.json()["error"]
        assert answer.json()["message"]


def test_what_cannot_be_unpacked_is_refused(console: ConsoleProcess) -> None:
    for coding, raw, status in (
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b'{"level":"info","message":"m"}')[:-9], 400),
        ("br", b"x", 415),
        ("gzip", gzip.compress(bytes(70 * 1024 * 1024)), 413),
    ):
        reply = console.call("POST", "/api/v1/agent/logs", raw=raw, headers={"Content-Encoding": coding})
        assert reply.status_code == status, reply.text


def test_the_old_sdk_reports_and_fetches_its_commands(console: ConsoleProcess, project: Project) -> None:
    name, _ = project
    console.post(f"/api/projects/{name}/sources", {"name": "old", "environment": "prod"})
    permissions = ["logs:write", "heartbeat:write", "performance:write", "commands:read", "commands:write"]
    made = console.post(f"/api/projects/{name}/tokens", {"name": "t", "permissions": permissions, "source": "old"})
    device = made["token"]
    ping = console.call("POST", "/api/logs/heartbeat", {"hostname": "vm", "ip": "10.0.0.5"}, token=device)
    assert (ping.status_code, ping.content) == (204, b"")
    console.post(f"/api/projects/{name}/servers/vm/commands", {"type": "stop", "source": "old"})
    (command,) = console.call("GET", "/api/logs/commands?hostname=vm", token=device).json()["commands"]
    assert command["type"] == "stop"
    console.call("POST", f"/api/logs/commands/{command['id']}/ack?hostname=vm", token=device)
    figures = {
        "message": "performance",
        "cpu": 130.0,
        "memory_used_bytes": 10,
        "memory_total_bytes": 20,
        "uptime_seconds": 5,
    }
    assert console.call("POST", "/api/logs/performance", figures, token=device).ok
    stats = console.get(f"/api/projects/{name}/sources/old/stats")
    assert stats["performance"]["avg_cpu"] == 130.0
    assert stats["server"] == {"hostname": "vm", "ip": "10.0.0.5", "name": None}
    assert stats["status"] == "started"


@pytest.mark.parametrize(
    ("path", "raw", "status"),
    [
        ("/api/v1/agent/log", b'{"level":"info","message":"a\\ud800b"}', 400),
        ("/api/v1/agent/log", b"null", 400),
        ("/api/v1/agent/logs", b'{"seq":9223372036854775808,"level":"info","message":"a"}', 400),
        ("/api/v1/agent/logs", b"\xff\xfe{", 400),
        ("/api/v1/agent/logs", b"", 200),
        ("/api/v1/agent/logs", b'\n\n{"level":"info","message":"a\\u0000b"}\n\n', 200),
        ("/api/v1/agent/commands/99999999999999999999/ack?hostname=h", b"", 400),
        ("/api/v1/agent/heartbeat", b'{"hostname":"a b","agentVersion":"","bootId":"","timestamp":""}', 400),
    ],
)
def test_odd_requests_are_answered_never_a_failure_of_the_console(
    console: ConsoleProcess, path: str, raw: bytes, status: int
) -> None:
    answer = console.call("POST", path, raw=raw, headers={"Orion-Instance": "odd"})
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.json()["error"].startswith("cannot")


def test_a_database_that_cannot_be_written_asks_devices_to_come_back() -> None:
    answer = error_answer(sqlite3.OperationalError("database or disk is full"))
    assert answer.status_code == 503
    assert b"disk is full" in answer.data
