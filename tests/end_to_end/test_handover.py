"""The agent may be killed or replaced: the applications go on and every line arrives once, in order."""

import os
import signal
import sys
from pathlib import Path

import gevent

from tests.end_to_end.daemon import REPOSITORY, Daemon, another_version, wait_until
from tests.faults.fixtures import FaultyBackend

RATE = 5000
WRITER = str(REPOSITORY / "tests" / "end_to_end" / "writer.py")


def progress(root: Path) -> int:
    """Return how many lines the writer has written."""
    file = root / "progress"
    return int(file.read_text(encoding="ascii") or 0) if file.exists() else 0


def add_writer(daemon: Daemon, root: Path, count: int, rate: int = RATE) -> int:
    """Register and start the writer; return its pid."""
    row = daemon.call(
        "script:add", name="writer", command=f"{sys.executable} -S {WRITER} {rate} {count} {root}/progress", cwd="/tmp"
    )
    pid: int = row["pid"]
    return pid


def numbers(faulty: FaultyBackend) -> list[int]:
    """Return the line numbers at the backend, unique by (instance, seq), in order of arrival."""
    return [int(e["message"].split()[1]) for e in faulty.received().entries if e["source"] == "writer"]


def test_a_killed_agent_loses_no_line_and_takes_its_script_back(
    faulty: FaultyBackend, daemon: Daemon, root: Path
) -> None:
    count = 30_000
    daemon.configure({"token": "t", "apiUrl": faulty.url, "bufferMaxEntries": 100_000})
    daemon.start()
    pid = add_writer(daemon, root, count)
    for at in (5_000, 10_000, 15_000, 20_000):
        wait_until(lambda at=at: progress(root) > at, "progress")  # type: ignore[misc]
        daemon.kill()
        gevent.sleep(0.1)
        daemon.start()
        row = daemon.row("writer")
        assert (row["pid"], row["restarts"], row["phase"]) == (pid, 0, "running")
    wait_until(lambda: progress(root) == count, "the last line is written")
    faulty.wait_for(entries=count, timeout_s=60)
    assert numbers(faulty) == list(range(1, count + 1))


def test_a_reload_into_a_new_version_keeps_pids_lines_and_connections(
    faulty: FaultyBackend, daemon: Daemon, root: Path
) -> None:
    count = 30_000
    daemon.configure({"token": "t", "apiUrl": faulty.url, "bufferMaxEntries": 100_000})
    daemon.start()
    assert daemon.process is not None
    pid = add_writer(daemon, root, count)
    wait_until(lambda: progress(root) > 5_000, "progress")
    with another_version():
        done = daemon.cli("reload")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: daemon.log().count("runs as pid") == 3, "the new image")
    assert daemon.process.poll() is None
    assert daemon.row("writer")["pid"] == pid
    wait_until(lambda: progress(root) == count, "the last line is written")
    faulty.wait_for(entries=count, timeout_s=60)
    assert numbers(faulty) == list(range(1, count + 1))


def test_the_exit_code_is_known_after_a_reload_and_the_restart_counter_goes_on(
    faulty: FaultyBackend, daemon: Daemon, root: Path
) -> None:
    daemon.configure({"token": "t", "apiUrl": faulty.url})
    daemon.start()
    row = daemon.call("script:add", name="app", command="sleep 1000", cwd="/tmp", backoffBase=0)
    os.kill(row["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.row("app")["restarts"] == 1 and daemon.row("app")["pid"], "a restart")
    with another_version():
        assert daemon.cli("reload").returncode == 0
        wait_until(lambda: "taken back" in daemon.log(), "the new image")
    os.kill(daemon.row("app")["pid"], signal.SIGUSR1)
    wait_until(lambda: daemon.row("app")["restarts"] == 2, "the next restart")
    assert daemon.row("app")["lastExit"]["signal"] == "SIGUSR1"


def test_a_version_that_does_not_start_leaves_the_old_one_running_and_says_so(
    faulty: FaultyBackend, daemon: Daemon
) -> None:
    daemon.configure({"token": "t", "apiUrl": faulty.url})
    daemon.start()
    pid = daemon.call("script:add", name="app", command="sleep 1000", cwd="/tmp")["pid"]
    Path(daemon.paths.config).write_text('{"tokn": "t"}', encoding="utf-8")  # the new image cannot read this
    with another_version():
        done = daemon.cli("reload")
    assert done.returncode == 1
    assert "does not start" in done.stderr or "stays" in done.stderr
    assert daemon.row("app")["pid"] == pid
