"""What a reload takes up of config.json while the daemon and its scripts go on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.fixtures import FaultyBackend

WAITING = "read line < prompt; exit 7"
QUICK = {"stopTimeout": 1000}


class Echo:
    """A running script that writes what it is told, and the daemon that it belongs to."""

    def __init__(self, daemon: Daemon, backend: FaultyBackend, folder: Path) -> None:
        self.daemon = daemon
        self.backend = backend
        self.folder = folder
        for name in ("lines", "prompt"):
            os.mkfifo(folder / name)
        # For reading too: whoever opens a fifo for writing alone waits for its reader.
        self._lines = os.open(folder / "lines", os.O_RDWR)

    def configure(self, fragile: str = WAITING, **config: Any) -> None:
        """Write config.json with these keys beside those that every test needs, and what one script runs."""
        scripts: list[dict[str, Any]] = [
            {"name": "echo", "command": "cat lines", "cwd": str(self.folder)},
            {"name": "fragile", "command": fragile, "cwd": str(self.folder), "autoRestart": False, **QUICK},
        ]
        base = {"token": "t", "apiUrl": self.backend.url, "heartbeatInterval": 1000}
        self.daemon.configure({**base, **config}, scripts)

    def reload(self) -> str:
        """Run `orion reload`; return what it says."""
        done = self.daemon.cli("reload")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def say(self, line: str) -> str:
        """Let the script write a line; return it as it arrived."""
        before = len(self.written())
        os.write(self._lines, line.encode() + b"\n")
        found: list[str] = wait_until(lambda: self.written()[before:], "the line has arrived")
        return found[0]

    def written(self) -> list[str]:
        return [entry["message"] for entry in self.backend.received().entries if entry["source"] == "echo"]

    def crash(self) -> dict[str, Any]:
        """Let the other script crash; return the alert."""
        with open(self.folder / "prompt", "wb") as prompt:
            prompt.write(b"now\n")
        (alert,) = self.backend.wait_for(alerts=1).alerts
        assert isinstance(alert, dict)
        return alert

    def close(self) -> None:
        os.close(self._lines)


@pytest.fixture
def echo(faulty: FaultyBackend, daemon: Daemon, tmp_path: Path) -> Iterator[Echo]:
    made = Echo(daemon, faulty, tmp_path)
    made.configure()
    daemon.start()
    yield made
    made.close()


def test_a_pattern_that_is_added_hides_the_next_line_of_a_running_script(echo: Echo) -> None:
    pid = echo.daemon.row("echo")["pid"]
    assert echo.say("pin 1234") == "pin 1234"
    echo.configure(redact=["[0-9]{4}"])
    assert echo.reload() == "configuration taken up\n"
    assert echo.say("pin 1234") == "pin [redacted]"
    assert echo.daemon.cli("log", "info", "pin 5678").returncode == 0
    wait_until(lambda: "pin [redacted]" in by_hand(echo), "the entry of `orion log`")
    assert echo.daemon.row("echo")["pid"] == pid
    echo.configure(redact=[])
    echo.reload()
    assert echo.say("pin 1234") == "pin 1234"


def by_hand(echo: Echo) -> list[str]:
    return [entry["message"] for entry in echo.backend.received().entries if entry["source"] == "cli"]


def test_rules_of_a_reload_that_fails_are_not_in_force(echo: Echo) -> None:
    echo.configure(redact=["[0-9]{4}"])
    Path(echo.daemon.paths.scripts).write_text("[", encoding="utf-8")
    assert echo.daemon.cli("reload").returncode == 1
    assert echo.say("pin 1234") == "pin 1234"


def test_a_reload_that_fails_during_another_one_does_not_undo_it(echo: Echo) -> None:
    stubborn = f"trap '' TERM; echo deaf; {WAITING}"
    echo.configure(stubborn)
    echo.reload()
    wait_until(lambda: "deaf" in echo.daemon.call("script:show", name="fragile")["lastLines"], "a script without ears")
    echo.configure(redact=["[0-9]{4}"])
    first = gevent.spawn(echo.daemon.cli, "reload")
    wait_until(lambda: echo.daemon.row("fragile")["phase"] == "stopping", "a reload under way")
    Path(echo.daemon.paths.config).write_text("{", encoding="utf-8")
    assert echo.daemon.cli("reload").returncode == 1
    assert first.get(timeout=30).returncode == 0
    assert echo.say("pin 1234") == "pin [redacted]"


def test_another_hostname_reaches_heartbeats_headers_alerts_and_status(echo: Echo) -> None:
    echo.configure(hostname="renamed")
    assert echo.reload() == "configuration taken up\n"
    assert echo.daemon.call("status")["hostname"] == "renamed"
    wait_until(lambda: any(b["hostname"] == "renamed" for b in echo.backend.received().heartbeats), "a heartbeat")
    assert echo.crash()["hostname"] == "renamed"
    last = echo.backend.requests("/agent/alert")[-1]
    assert {name.lower(): value for name, value in last.headers.items()}["orion-hostname"] == "renamed"
    echo.configure()
    echo.reload()
    assert echo.daemon.call("status")["hostname"] == os.uname().nodename


def test_the_first_command_of_another_backend_is_done(
    echo: Echo, start_faulty: Callable[..., FaultyBackend], faulty: FaultyBackend
) -> None:
    restart = {"id": 1, "type": "restart", "source": "echo"}
    first = echo.daemon.row("echo")["pid"]
    faulty.rule(heartbeat_answer={"commands": [restart]})
    wait_until(lambda: faulty.received().acknowledged, "the command is acknowledged")
    second = echo.daemon.row("echo")["pid"]
    assert second != first
    other = start_faulty()
    other.rule(heartbeat_answer={"commands": [restart]})
    echo.configure(apiUrl=other.url)
    echo.reload()
    wait_until(lambda: other.received().acknowledged, "the other backend's command is acknowledged")
    assert echo.daemon.row("echo")["pid"] != second
