"""What the guide promises, word for word, against the real daemon."""

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.fixtures import FaultyBackend


@pytest.fixture
def ready(faulty: FaultyBackend, daemon: Daemon) -> Daemon:
    daemon.configure({"token": "t", "apiUrl": faulty.url, "heartbeatInterval": 1000})
    daemon.start()
    return daemon


def test_every_command_of_the_guide_works(ready: Daemon) -> None:
    folder = Path("/opt/myapp")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        line = 'orion script add api "node dist/index.js" --cwd /opt/myapp --no-auto-restart'
        added = ready.cli(*shlex.split(line)[1:])
        assert added.returncode == 0, added.stderr
        (script,) = json.loads(Path(ready.paths.scripts).read_text(encoding="utf-8"))
        assert (script["name"], script["command"], script["cwd"]) == ("api", "node dist/index.js", "/opt/myapp")
        assert script["autoRestart"] is False
    finally:
        if made:
            folder.rmdir()
    assert ready.cli("script", "add", "web", "sleep 1000", "--cwd", "/tmp", "--no-capture").returncode == 0
    for line, expected in (
        ("orion status", "web"),
        ('orion log info "Deploy complete"', ""),
        ('orion log error "Disk space low"', ""),
        ("orion script stop web", "web"),
        ("orion script start web", "web"),
        ("orion script restart web", "web"),
        ("orion script list", "web"),
    ):
        done = ready.cli(*shlex.split(line)[1:])
        assert done.returncode == 0, (line, done.stderr)
        assert expected in done.stdout


def test_every_message_of_the_guide_is_answered_on_the_socket(ready: Daemon, faulty: FaultyBackend) -> None:
    missing = ready.raw(b'{ "cmd": "script:start", "name": "api-backend" }')[0]
    assert missing["ok"] is False
    assert missing["error"].startswith("Script not found")
    listed, status, logged = ready.raw(
        b'{ "cmd": "script:list" }',
        b'{ "cmd": "status" }',
        b'{ "cmd": "log", "level": "info", "message": "Deploy done" }',
    )
    assert [reply["ok"] for reply in (listed, status, logged)] == [True] * 3
    wait_until(lambda: "Deploy done" in faulty.messages(), "the one-off log at the backend")


def test_a_heartbeat_has_what_the_guide_lists(ready: Daemon, faulty: FaultyBackend) -> None:
    ready.call("script:add", name="steady", command="sleep 1000", cwd="/tmp")
    faulty.wait_for(heartbeats=3)
    beat = faulty.received().heartbeats[-1]
    assert beat["hostname"] == os.uname().nodename
    assert 0 <= beat["cpu"]["percent"] <= 100
    assert 0 < beat["memory"]["usedMb"] < beat["memory"]["totalMb"]
    assert 0 < beat["disk"]["usedGb"] <= beat["disk"]["totalGb"]
    assert beat["uptimeSeconds"] > 0
    assert [(s["name"], s["state"]) for s in beat["scripts"]] == [("steady", "running")]
    assert beat["buffer"]["droppedTotal"] == 0


def test_a_crash_alerts_even_without_auto_restart(ready: Daemon, faulty: FaultyBackend) -> None:
    ready.call("script:add", name="fragile", command="echo last words; exit 7", cwd="/tmp", autoRestart=False)
    faulty.wait_for(alerts=1)
    (alert,) = faulty.received().alerts
    assert (alert["script"], alert["exitCode"], alert["lastLines"]) == ("fragile", 7, ["last words"])


def test_output_reaches_the_backend_with_source_stream_and_level(ready: Daemon, faulty: FaultyBackend) -> None:
    ready.call("script:add", name="talk", command="echo fine; echo 'WARN odd'; echo bad >&2; sleep 1000", cwd="/tmp")
    faulty.wait_for(entries=3)
    seen = {(e["source"], e["stream"], e["level"], e["message"]) for e in faulty.received().entries}
    assert ("talk", "stdout", "info", "fine") in seen
    assert ("talk", "stderr", "error", "bad") in seen
    assert any(level == "warn" and "odd" in message for _, _, level, message in seen)


def test_sigterm_stops_the_scripts_flushes_and_exits_zero(ready: Daemon, faulty: FaultyBackend) -> None:
    ready.call(
        "script:add", name="last", command="trap 'echo goodbye; exit 0' TERM; while :; do sleep 0.05; done", cwd="/tmp"
    )
    pid = ready.row("last")["pid"]
    assert ready.stop() == 0
    assert not os.path.exists(f"/proc/{pid}")
    assert "goodbye" in faulty.messages()
    assert faulty.received().heartbeats[-1]["stopping"] is True
    assert not os.path.exists(ready.paths.socket)


def test_a_second_daemon_refuses_and_says_who_runs(ready: Daemon) -> None:
    second = ready.cli("daemon", "--foreground")
    assert second.returncode == 1
    assert ready.process is not None
    assert f"pid {ready.process.pid}" in second.stderr
    assert ready.answers()


def test_a_stale_socket_is_replaced(ready: Daemon) -> None:
    ready.kill()
    assert os.path.exists(ready.paths.socket)
    ready.start()


def test_bad_input_names_the_thing_and_changes_nothing(ready: Daemon) -> None:
    ready.call("script:add", name="api", command="sleep 1000", cwd="/tmp")
    before = Path(ready.paths.scripts).read_bytes()
    pid = ready.row("api")["pid"]
    for words, expected in (
        (("script", "add", "api", "sleep 1"), "api"),
        (("script", "add", "Bad_Name", "sleep 1"), "Bad_Name"),
        (("script", "add", "b", "sleep 1", "--cwd", "/no/such/folder"), "/no/such/folder"),
        (("script", "add", "b", "sleep 1", "--user", "nobody-here"), "nobody-here"),
        (("script", "add", "b", "sleep 1", "--set", "maxRestart=3"), "maxRestarts"),
        (("script", "stop", "apy"), "api"),
        (("log", "loud", "hello"), "loud"),
    ):
        done = ready.cli(*words)
        assert done.returncode != 0, words
        assert expected in done.stderr, (words, done.stderr)
    assert Path(ready.paths.scripts).read_bytes() == before
    assert ready.row("api")["pid"] == pid


def test_a_malformed_scripts_json_leaves_the_last_good_one_in_force_and_says_so(ready: Daemon) -> None:
    ready.call("script:add", name="api", command="sleep 1000", cwd="/tmp")
    pid = ready.row("api")["pid"]
    Path(ready.paths.scripts).write_text('[{"name": "api", "comand": "x"}]', encoding="utf-8")
    done = ready.cli("reload")
    assert done.returncode == 1
    assert "did you mean 'command'" in done.stderr
    assert ready.row("api")["pid"] == pid
    assert "comand" in ready.cli("status").stdout


def test_sighup_takes_up_an_edited_file(ready: Daemon) -> None:
    Path(ready.paths.scripts).write_text('[{"name": "late", "command": "sleep 1000", "cwd": "/tmp"}]', encoding="utf-8")
    ready.signal(signal.SIGHUP)
    wait_until(lambda: any(s["name"] == "late" for s in ready.call("status")["scripts"]), "the new script")
