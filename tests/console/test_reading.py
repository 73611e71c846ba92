"""What pages read: search and export of entries, statistics, alerts and rules; shapes that cannot crash them."""

import csv
import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from tests.console.process import ConsoleProcess
from tests.console.test_device import heartbeat, send

Project = tuple[str, str]


def line(day: int, **fields: Any) -> dict[str, Any]:
    return {"timestamp": f"2026-03-{day:02}T12:00:00Z", "level": "info", "message": "m", "source": "api"} | fields


@pytest.fixture
def filled(console: ConsoleProcess, project: Project) -> str:
    """Return a project with five entries of two sources, two hosts, four days."""
    name, token = project
    send(
        console,
        token,
        [
            line(4, message="Order 100% done", tags=["shop", "eu"], metadata={"user": "Ada"}),
            line(1, message="first"),
            line(3, level="error", message="=cmd()", source="worker"),
        ],
        Orion_Hostname="a",
    )
    send(
        console,
        token,
        [line(2, level="warn", message="second"), line(4, message="last", tags=["us"])],
        Orion_Hostname="b",
    )
    return name


@pytest.mark.parametrize(
    ("query", "messages"),
    [
        ({}, ["first", "second", "=cmd()", "Order 100% done", "last"]),
        ({"limit": 2}, ["Order 100% done", "last"]),
        ({"level": "warn,error"}, ["second", "=cmd()"]),
        ({"source": "worker"}, ["=cmd()"]),
        ({"source": "unknown"}, []),
        ({"server": "b"}, ["second", "last"]),
        ({"server": "a,b", "level": "info"}, ["first", "Order 100% done", "last"]),
        ({"from": "2026-03-02", "to": "2026-03-03"}, ["second", "=cmd()"]),
        ({"tags": "eu,us"}, ["Order 100% done", "last"]),
        ({"search": "order 100%"}, ["Order 100% done"]),
        ({"search": "100_"}, []),
        ({"search": "ada"}, ["Order 100% done"]),
        ({"search": "' OR 1=1"}, []),
    ],
)
def test_a_search_returns_the_newest_matches_oldest_first(
    console: ConsoleProcess, filled: str, query: dict[str, Any], messages: list[str]
) -> None:
    found = console.get(f"/api/projects/{filled}/logs?{urlencode(query)}")
    assert [entry["message"] for entry in found] == messages


def test_what_stands_above_an_entry_is_read_page_by_page(console: ConsoleProcess, filled: str) -> None:
    found: list[str] = []
    before = ""
    while page := console.get(f"/api/projects/{filled}/logs?limit=2{before}"):
        found = [entry["message"] for entry in page] + found
        before = f"&before={page[0]['id']}"
    assert found == ["first", "second", "=cmd()", "Order 100% done", "last"]
    assert console.get(f"/api/projects/{filled}/logs?before=999999999") == []


@pytest.mark.parametrize("query", ["limit=0x1", "limit=10001", "from=yesterday", "to=2026-02-31"])
def test_a_search_that_cannot_be_names_the_word(console: ConsoleProcess, query: str) -> None:
    answer = console.call("GET", f"/api/projects/local/logs?{query}")
    assert answer.status_code == 400
    assert query.split("=")[1] in answer.json()["error"]


def test_an_export_is_what_the_search_finds(console: ConsoleProcess, filled: str) -> None:
    path = f"/api/projects/{filled}/logs/export?limit=100"
    assert console.get(f"{path}&format=json") == console.get(f"/api/projects/{filled}/logs")
    rows = list(csv.DictReader(io.StringIO(console.call("GET", f"{path}&format=csv").text)))
    assert rows[0]["message"] == "first"
    assert rows[2]["message"] == "'=cmd()"  # no formula for a spreadsheet
    assert rows[3]["tags"] == "shop eu"
    assert msgspec.json.decode(rows[3]["metadata"]) == {"user": "Ada"}
    assert console.get(f"/api/projects/{filled}/logs/export?limit=0&format=json") == []


def test_a_source_page_reads_its_own_or_all(console: ConsoleProcess, filled: str) -> None:
    assert len(console.get(f"/api/projects/{filled}/sources/all/logs")) == 5
    assert len(console.get(f"/api/projects/{filled}/sources/worker/logs")) == 1
    assert console.call("GET", f"/api/projects/{filled}/sources/none/logs").status_code == 404


@pytest.mark.parametrize(("window", "buckets"), [("24h", 24), ("7d", 7), ("30d", 30)])
def test_statistics_are_dense_and_add_up(console: ConsoleProcess, project: Project, window: str, buckets: int) -> None:
    name, token = project
    now = datetime.now(UTC)
    for age, level in ((timedelta(), "info"), (timedelta(minutes=1), "error"), (timedelta(days=40), "info")):
        body = {"timestamp": (now - age).isoformat(), "level": level, "message": "m", "source": "api"}
        console.post("/api/v1/agent/log", body, token=token)
    for path in (f"/api/projects/{name}/stats", f"/api/projects/{name}/sources/api/stats"):
        stats = console.get(f"{path}?window={window}")
        assert stats["log_counts"]["total"] == 2
        assert len(stats["chart_data"]) == buckets
        starts = [bucket["bucket_start"] for bucket in stats["chart_data"]]
        assert starts == sorted(starts)
        assert sum(bucket["error"] for bucket in stats["chart_data"]) == 1
    assert len(stats["recent_errors"]) == 1


def test_an_unknown_source_has_zeros_not_an_error(console: ConsoleProcess, project: Project) -> None:
    stats = console.get(f"/api/projects/{project[0]}/sources/nothing/stats")
    assert stats["log_counts"]["total"] == 0
    assert stats["recent_errors"] == []
    assert stats["status"] is stats["server"] is stats["performance"] is None


def test_heartbeats_have_a_row_per_source_also_of_silent_ones(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    console.post(f"/api/projects/{name}/sources", {"name": "quiet", "environment": "test"})
    scripts = [
        {"name": "one", "source": "api", "state": "running"},
        {"name": "two", "source": "api", "state": "stopped"},
    ]
    console.post("/api/v1/agent/heartbeat", heartbeat(scripts=scripts), token=token)
    rows = console.get(f"/api/projects/{name}/heartbeats")["heartbeats"]
    assert [(row["source"], row["status"]) for row in rows] == [("api", "partial"), ("quiet", None)]


def test_alerts_are_silenced_resolved_and_deleted(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    for number in range(3):
        alert = {
            "id": str(number),
            "timestamp": "2026-01-02T03:04:05Z",
            "hostname": "h",
            "script": "s",
            "source": "s",
            "message": str(number),
            "cause": "signal",
            "signal": "SIGKILL",
        }
        console.post("/api/v1/agent/alert", alert, token=token)
    base = f"/api/projects/{name}/alerts"
    newest, middle, oldest = console.get(base)
    assert [newest["message"], oldest["message"]] == ["2", "0"]
    assert console.post(f"{base}/{newest['id']}/silence", {"duration": "2h"})["silenced_until"] is not None
    assert console.post(f"{base}/{middle['id']}/resolve")["resolved_by_pseudo"] == "operator"
    assert console.call("DELETE", f"{base}/{oldest['id']}").ok
    assert [alert["status"] for alert in console.get(base)] == ["silenced", "resolved"]
    assert console.get(f"{base}?status=active") == []
    assert console.call("POST", f"{base}/{newest['id']}/silence", {"duration": "1y"}).status_code == 400
    assert console.call("POST", f"{base}/999999/resolve").status_code == 404


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]], threading.Event]]:
    """Yield (address, what was posted there, an event that is set by each post)."""
    posted: list[dict[str, Any]] = []
    arrived = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", posted, arrived
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_rules_webhook_is_tried_and_called(
    console: ConsoleProcess,
    project: Project,
    webhook: tuple[str, list[dict[str, Any]], threading.Event],
) -> None:
    name, token = project
    address, posted, arrived = webhook
    rule = {
        "name": "one",
        "level": "error",
        "threshold": None,
        "window_seconds": 60,
        "source_name": None,
        "channels": [{"type": "webhook", "target": address}, {"type": "email", "target": "a@example.org"}],
        "enabled": True,
    }
    made = console.post(f"/api/projects/{name}/alerts/rules", rule)
    assert made["threshold"] == 1
    console.post(f"/api/projects/{name}/alerts/rules/{made['id']}/test")
    assert arrived.wait(10)
    assert posted[0]["alert"]["test"] is True
    arrived.clear()
    console.post("/api/v1/agent/log", {"level": "error", "message": "e", "source": "api"}, token=token)
    assert arrived.wait(10)
    assert posted[1]["alert"] == console.get(f"/api/projects/{name}/alerts")[0]
    assert console.call("DELETE", f"/api/projects/{name}/alerts/rules/{made['id']}").ok
    assert console.get(f"/api/projects/{name}/alerts/rules") == []


@pytest.mark.parametrize(
    "change",
    [
        {"channels": [{"type": "webhook", "target": "file:///etc/passwd"}]},
        {"channels": [{"type": "pigeon", "target": "x"}]},
        {"threshold": -1},
        {"window_seconds": 0},
        {"name": ""},
    ],
)
def test_a_rule_that_cannot_be_is_refused(console: ConsoleProcess, change: dict[str, Any]) -> None:
    rule = {"name": "r", "level": "error", "threshold": 1, "window_seconds": 60, "channels": [], "enabled": True}
    answer = console.call("POST", "/api/projects/local/alerts/rules", rule | change)
    assert answer.status_code == 400
    assert "cannot save the rule" in answer.json()["error"]


def test_every_path_answers_a_preflight_and_errors_carry_its_headers(console: ConsoleProcess) -> None:
    for path in ("/api/projects", "/api/auth/login", "/api/nowhere", "/api/v1/agent/log"):
        preflight = console.call("OPTIONS", path, token="")
        assert preflight.ok
        assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
        assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    missing = console.call("GET", "/api/nowhere")
    assert missing.status_code == 404
    assert missing.headers["Access-Control-Allow-Origin"] == "*"
    assert missing.json()["error"]
    wrong = console.call("PUT", "/api/projects")
    assert wrong.status_code == 405
    assert wrong.json()["message"]


def test_a_json_content_type_without_body_and_a_doubled_one_are_fine(console: ConsoleProcess) -> None:
    twice = {"Content-Type": "application/json, application/json"}
    levels = ["info", "warn", "error", "debug", "verbose", "trace", "fatal"]
    answer = console.call("PATCH", "/api/projects/local/settings", {"enabled_levels": levels}, headers=twice)
    assert answer.ok
    assert console.call("GET", "/api/projects", headers=twice).ok
