"""Two scripted lines, without a terminal, and the console has the server's heartbeat and the application's lines."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.console.process import ConsoleProcess
from tests.end_to_end.daemon import ORION, Daemon, run_quietly

MOST_S = 10.0


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


@pytest.fixture
def app(root: Path) -> Path:
    folder = root / "shop"
    folder.mkdir()
    (folder / "Procfile").write_text("web: while echo served a page; do sleep 1; done\n", encoding="utf-8")
    return folder


def time_until(holds: Callable[[], Any], began: float) -> float:
    """Return how long it took until it held, within the promised time."""
    while not holds():
        assert time.monotonic() - began < MOST_S, "not within the promised time"
        gevent.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("daemon_starts", ["before", "between", "after"])
def test_two_scripted_lines_bring_heartbeat_and_lines_into_the_console(
    daemon_starts: str, app: Path, console: ConsoleProcess, daemon: Daemon
) -> None:
    environment = {"ORION_ROOT": daemon.paths.root, "PATH": os.environ["PATH"]}

    def setup(*words: str) -> None:
        line = [ORION, "setup", *words, "--token", console.token, "--yes"]
        done = run_quietly(line, environment, cwd=str(app))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert console.token not in done.stdout

    def has_heartbeat() -> bool:
        (server,) = console.get("/api/projects/shop/servers")["servers"]
        # The set-up's own has no figures in it.
        return "cpu" in server["report"] and server["status"] == "online"

    def has_lines() -> bool:
        found = console.get("/api/projects/shop/sources/shop/logs")
        return any(entry["message"] == "served a page" for entry in found)

    if daemon_starts == "before":
        daemon.start()
    began = time.monotonic()
    setup("--server", "--api-url", console.url, "--project", "shop")
    if daemon_starts == "between":
        daemon.start()
    setup("--source", *(["--user", "root"] if os.geteuid() == 0 else []))
    if daemon_starts == "after":
        daemon.start()
    ready_s = time.monotonic() - began
    heartbeat_s = time_until(has_heartbeat, began)
    lines_s = time_until(has_lines, began)
    sys.stdout.write(f"set up in {ready_s:.1f} s, then heartbeat at {heartbeat_s:.1f} s, lines at {lines_s:.1f} s\n")
