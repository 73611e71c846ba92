"""What people see of delivery that does not go well, and that it goes on: the real daemon, told by its commands."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.fixtures import FaultyBackend
from tests.faults.script import Received

LINES = 300
WRITER = {"name": "writer", "command": f"seq 1 {LINES}", "cwd": "/tmp"}
LOGS = "/agent/logs"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


def configure(daemon: Daemon, backend: FaultyBackend, *, token: str = "t", **script: Any) -> None:
    config = {"token": token, "apiUrl": backend.url, "heartbeatInterval": 1000}
    daemon.configure(config, [{**WRITER, **script}])


def wait_for_link(daemon: Daemon, state: str) -> dict[str, Any]:
    """Return the status once all lines are in the buffer and the link is as given."""

    def look() -> dict[str, Any] | None:
        status: dict[str, Any] = daemon.call("status")
        return status if status["link"]["state"] == state and status["buffer"]["entries"] >= LINES else None

    found: dict[str, Any] = wait_until(look, f"the link is {state}")
    return found


def lines(received: Received) -> list[str]:
    return [entry["message"] for entry in received.entries if entry["source"] == "writer"]


ALL = [str(number) for number in range(1, LINES + 1)]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_pauses_keeps_and_says_so_until_there_is_a_new_one(
    faulty: FaultyBackend, daemon: Daemon, status: int
) -> None:
    faulty.rule(**{"tokens": ["new"]} if status == 401 else {"forbidden_tokens": ["t"]})
    configure(daemon, faulty)
    daemon.start()
    found = wait_for_link(daemon, "paused")
    assert str(status) in found["link"]["lastError"]
    assert 0 < found["link"]["nextAttemptSeconds"] <= 60
    shown = daemon.cli("status").stdout
    assert "paused" in shown
    faulty.wait_for(heartbeats=0, requests=len(faulty.received().requests) + 2)  # heartbeats, refused like the logs
    assert len(faulty.requests(LOGS)) == 1, "it does not insist"
    configure(daemon, faulty, token="new")
    assert daemon.cli("reload").returncode == 0
    assert lines(faulty.wait_for(entries=LINES)) == ALL
    wait_until(lambda: daemon.call("status")["link"]["state"] == "connected", "connected again")
    assert daemon.call("status")["buffer"]["droppedTotal"] == 0


def test_what_a_backend_will_not_have_is_set_aside_for_people_to_read(faulty: FaultyBackend, daemon: Daemon) -> None:
    command = f"seq 1 {LINES}; echo a poisoned line; head -c 30000 /dev/zero | tr '\\0' x; echo; echo last"
    faulty.rule(max_bytes=20_000, poison="poisoned")
    configure(daemon, faulty, command=command)
    daemon.start()
    assert lines(faulty.wait_for(entries=LINES + 1)) == [*ALL, "last"]
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] == 0, "an empty buffer")
    assert daemon.call("status")["buffer"]["rejectedTotal"] == 2
    assert "2 rejected" in daemon.cli("status").stdout
    aside = [json.loads(line) for line in Path(daemon.paths.rejected).read_text("utf-8").splitlines()]
    assert [one["entry"]["message"][:10] for one in aside] == ["a poisoned", "x" * 10]
    assert ["400" in aside[0]["reason"], "413" in aside[1]["reason"]] == [True, True]


def test_a_redirect_is_not_followed_is_named_and_a_flush_sends_what_waited(
    faulty: FaultyBackend, start_faulty: Callable[..., FaultyBackend], daemon: Daemon
) -> None:
    elsewhere = start_faulty()
    faulty.fail("redirect", path=LOGS, status=307, times=0, location=f"{elsewhere.url}/api/v1{LOGS}")
    configure(daemon, faulty)
    daemon.start()
    assert "redirect" in wait_for_link(daemon, "paused")["link"]["lastError"]
    assert elsewhere.received().connections == 0
    assert f"sent 0 entries, {LINES} wait" in daemon.cli("buffer", "flush").stdout
    assert elsewhere.received().connections == 0
    faulty.clear()
    flushed = daemon.cli("buffer", "flush", "--json")
    assert flushed.returncode == 0
    assert json.loads(flushed.stdout)["remaining"] == 0
    assert lines(faulty.received()) == ALL


def test_a_clock_that_differs_from_the_backends_shows(faulty: FaultyBackend, daemon: Daemon) -> None:
    faulty.rule(clock_skew_s=7200)
    configure(daemon, faulty)
    daemon.start()
    faulty.wait_for(entries=LINES)
    skew = daemon.call("status")["link"]["clockSkewSeconds"]
    assert 7195 < skew < 7205
    assert "clock" in daemon.cli("status").stdout


def test_a_damaged_journal_is_taken_up_marked_and_said(faulty: FaultyBackend, daemon: Daemon) -> None:
    faulty.refuse()
    configure(daemon, faulty)
    daemon.start()
    wait_for_link(daemon, "retrying")
    daemon.kill()
    journal = Path(daemon.paths.buffer)
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"message":"150"', b'"message":"15\xff"') + b"\0" * 5000 + b"not ours\n")
    daemon.start()
    faulty.listen()
    found = faulty.wait_for(entries=LINES)
    assert set(ALL) - set(lines(found)) == {"150"}
    assert all(entry["damaged"] for entry in found.entries if entry["source"] == "writer")
    said = [entry["metadata"] for entry in found.entries if entry["source"] == "orion-agent"]
    assert said == [{"salvaged": LINES - 1, "lost": 2}], "the line that was hit, and the foreign one"
    assert daemon.call("status")["buffer"]["droppedTotal"] == 2


@needs_root
def test_a_full_disk_stops_no_application_is_said_and_everything_arrives_in_the_end(
    faulty: FaultyBackend, daemon: Daemon, root: Path
) -> None:
    folder, saved = root / "etc" / "orion", root / "saved"
    mount = (
        f"cp -a {folder} {saved} && mount -t tmpfs -o size=2m tmpfs {folder} && cp -a {saved}/. {folder}"
        f' && head -c 1900000 /dev/zero > {folder}/ballast && exec "$@"'
    )
    faulty.refuse()
    configure(daemon, faulty, command="seq 1 8000")
    daemon.launcher = ("unshare", "--mount", "sh", "-c", mount, "sh")
    process = daemon.spawn()
    wait_until(daemon.answers, "the daemon answers")
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] >= 8000, "all lines are kept")
    status = daemon.call("status")["buffer"]
    assert status["memoryOnly"]
    assert "No space left" in status["diskError"]
    assert "No space left" in daemon.cli("status").stdout
    assert daemon.row("writer")["state"] == "stopped"
    os.unlink(f"/proc/{process.pid}/root{folder}/ballast")
    wait_until(lambda: not daemon.call("status")["buffer"]["memoryOnly"], "the disk takes entries again")
    faulty.listen()
    assert lines(faulty.wait_for(entries=8000)) == [str(number) for number in range(1, 8001)]
    assert daemon.call("status")["buffer"]["droppedTotal"] == 0
