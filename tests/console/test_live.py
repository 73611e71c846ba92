"""All seven live messages arrive as the clients read them, on tickets that work once, for one project."""

import signal
from pathlib import Path

from tests.console.listening import Listener
from tests.console.process import ConsoleProcess
from tests.console.test_device import entry, heartbeat, send

Project = tuple[str, str]
SCRIPTS = [{"name": "api", "source": "api", "state": "running"}]


def test_entries_and_the_news_of_statistics_arrive(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    with Listener.to(console, name) as listener:
        send(console, token, [entry(1, tags=["x"])], Orion_Instance="i", Orion_Hostname="web-1")
        log = listener.wait_for("log")
        assert (log["message"], log["level"], log["source"]) == ("line 1", "info", "api")
        assert log["timestamp"] == "2026-01-02T03:04:01.500Z"
        assert log["server"] == "web-1"
        assert log["id"] == console.get(f"/api/projects/{name}/logs")[0]["id"]
        assert listener.wait_for("stats_update") == {"projectName": name}


def test_a_heartbeat_tells_server_sources_and_figures(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    with Listener.to(console, name) as listener:
        console.post("/api/v1/agent/heartbeat", heartbeat(scripts=SCRIPTS, cpu={"percent": 5.0}), token=token)
        status = listener.wait_for("server_status")
        assert (status["hostname"], status["status"], status["projectName"]) == ("web-1", "online", name)
        (source,) = status["sources"]
        assert (source["name"], source["environment"], source["status"]) == ("api", "prod", "started")
        beat = listener.wait_for("heartbeat")
        assert (beat["source"], beat["status"], beat["projectName"]) == ("api", "started", name)
        assert listener.wait_for("host")["report"]["cpu"] == {"percent": 5.0}
        console.post("/api/v1/agent/heartbeat", heartbeat(scripts=SCRIPTS, stopping=True), token=token)
        assert listener.wait_for("server_status")["status"] == "offline"


def test_alert_command_and_performance_arrive(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    console.post("/api/v1/agent/heartbeat", heartbeat(scripts=SCRIPTS), token=token)
    with Listener.to(console, name) as listener:
        alert = {
            "id": "a",
            "timestamp": "2026-01-02T03:04:05Z",
            "hostname": "web-1",
            "script": "api",
            "source": "api",
            "message": "boom",
            "cause": "exit",
        }
        console.post("/api/v1/agent/alert", alert, token=token)
        told = listener.wait_for("alert")
        assert told == console.get(f"/api/projects/{name}/alerts")[0]
        sent = console.post(f"/api/projects/{name}/servers/web-1/commands", {"type": "stop", "source": "api"})
        path = f"/api/v1/agent/commands/{sent['command']['id']}/ack?hostname=web-1"
        console.post(path, {"ok": False}, token=token)
        outcome = listener.wait_for("command_status")
        assert outcome["commandId"] == sent["command"]["id"]
        assert outcome["acked_at"] is not None
        assert {key: outcome[key] for key in ("hostname", "type", "status", "source_name")} == {
            "hostname": "web-1",
            "type": "stop",
            "status": "failed",
            "source_name": "api",
        }
        figures = {"cpu": 1.5, "memory_used_bytes": 1, "memory_total_bytes": 2, "uptime_seconds": 3}
        assert console.call("POST", "/api/logs/performance", figures, token=token).ok
        performance = listener.wait_for("performance")
        assert performance == {
            "source": "agent",
            "cpu": 1.5,
            "memory_used": 1,
            "memory_total": 2,
            "uptime_seconds": 3,
        }


def test_a_rule_raises_an_alert_when_entries_come_too_often(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    rule = {
        "name": "errors",
        "level": "error",
        "threshold": 3,
        "window_seconds": 60,
        "source_name": None,
        "channels": [],
        "enabled": True,
    }
    made = console.post(f"/api/projects/{name}/alerts/rules", rule, status=201)
    with Listener.to(console, name) as listener:
        for _ in range(2):
            console.post("/api/v1/agent/log", {"level": "error", "message": "e"}, token=token)
        assert console.get(f"/api/projects/{name}/alerts") == []
        for _ in range(3):
            console.post("/api/v1/agent/log", {"level": "error", "message": "e"}, token=token)
        assert listener.wait_for("alert")["rule_name"] == "errors"
    assert len(console.get(f"/api/projects/{name}/alerts")) == 1  # once a window
    console.call("PUT", f"/api/projects/{name}/alerts/rules/{made['id']}", {"enabled": False})
    (kept,) = console.get(f"/api/projects/{name}/alerts/rules")
    assert (kept["enabled"], kept["threshold"], kept["name"]) == (False, 3, "errors")


def test_a_burst_is_shortened_and_says_so(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    with Listener.to(console, name) as listener:
        send(console, token, [entry(seq) for seq in range(1, 5001)], Orion_Instance="i")
        assert listener.wait_for("skipped") == {"type": "log", "count": 4800}
        assert listener.wait_for("log")["message"] == "line 4801"


def test_a_ticket_works_once_and_only_for_its_project(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    url = console.post("/api/ws/create", {"projectName": name})["url"]
    with Listener(url) as listener:
        console.post("/api/v1/agent/log", {"level": "info", "message": "not for you"})  # project local
        console.post("/api/v1/agent/log", {"level": "info", "message": "for you"}, token=token)
        assert listener.wait_for("log")["message"] == "for you"
        with Listener(url) as again:
            assert again.closed_with == 401
    with Listener(url.split("?")[0] + "?ticket=guess") as guess:
        assert guess.closed_with == 401


def test_a_listener_that_pings_is_answered_and_hears_on(console: ConsoleProcess, project: Project) -> None:
    name, token = project
    with Listener.to(console, name) as listener:
        listener.ping(b"are you there")
        console.post("/api/v1/agent/log", {"level": "info", "message": "m"}, token=token)
        assert listener.wait_for("log")["message"] == "m"


def test_a_listener_is_told_goodbye_when_the_console_stops(root: Path) -> None:
    with ConsoleProcess(root) as console, Listener.to(console, "local") as listener:
        status = console.stop(signal.SIGTERM)
        assert listener.wait_closed() == 1001
        assert status == 0
