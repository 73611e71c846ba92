"""A SIGTERM may come at any moment: what has begun is ended, nothing is left running or half-written."""

import json
import os
import signal
from pathlib import Path

import gevent

from tests.end_to_end.daemon import Daemon, another_version, wait_until
from tests.faults.fixtures import FaultyBackend

QUIET = {"remoteCommands": False}


def test_term_while_the_parts_are_loaded_ends_at_once_or_cleanly(daemon: Daemon) -> None:
    scripts = [{"name": f"app-{n}", "command": "sleep 900", "cwd": "/tmp"} for n in range(30)]
    daemon.configure(QUIET, scripts)
    daemon.start()
    daemon.kill()
    process = daemon.spawn()
    # As early as it can hit: while it loads its parts, with thirty scripts of the one before still running.
    gevent.sleep(0.2)
    process.terminate()
    gone = gevent.get_hub().threadpool.apply(process.wait, (30.0,))
    left = [pid for n in range(30) for pid in daemon.members(f"app-{n}")]
    if gone == 0:
        assert left == []
    else:  # it had not begun to be responsible: the applications wait for the next one, every one of them
        assert (gone, len(left)) == (-signal.SIGTERM, 30)


def test_term_in_the_middle_of_a_start_ends_cleanly_and_leaves_no_process(daemon: Daemon) -> None:
    count = 60
    scripts = [
        {"name": f"app-{n}", "command": "sleep 900", "cwd": "/tmp", "after": [f"app-{n - 1}"] if n else []}
        for n in range(count)
    ]
    daemon.configure(QUIET, scripts)
    process = daemon.spawn()
    wait_until(lambda: "app-3 runs as pid" in daemon.log(), "a start that has got somewhere")
    process.terminate()
    assert gevent.get_hub().threadpool.apply(process.wait, (30.0,)) == 0
    assert f"app-{count - 1} runs as pid" not in daemon.log()
    assert [pid for n in range(count) for pid in daemon.members(f"app-{n}")] == []
    assert not os.path.exists(daemon.paths.state)


def test_term_in_the_middle_of_a_reload_ends_cleanly_and_leaves_no_process(daemon: Daemon) -> None:
    scripts = [{"name": f"app-{n}", "command": "sleep 900", "cwd": "/tmp"} for n in range(20)]
    daemon.configure(QUIET, scripts)
    daemon.start()
    wait_until(lambda: daemon.row("app-19")["phase"] == "running", "all run")
    edited = json.dumps([{**script, "nice": 1} for script in scripts])
    Path(daemon.paths.scripts).write_text(edited, encoding="utf-8")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.log().count("app-2 ") >= 2, "a reload that has got somewhere")
    assert daemon.stop() == 0
    assert [pid for n in range(20) for pid in daemon.members(f"app-{n}")] == []
    assert Path(daemon.paths.scripts).read_text(encoding="utf-8") == edited


def test_term_right_after_a_reload_into_another_version_is_obeyed_by_the_next_image(daemon: Daemon) -> None:
    daemon.configure(QUIET, [{"name": "app", "command": "sleep 900", "cwd": "/tmp"}])
    daemon.start()
    with another_version():
        assert daemon.cli("reload").returncode == 0
        # The old image says so just before it hands over; the signal then waits in the kernel or is obeyed at once.
        assert daemon.stop() == 0
    assert daemon.members("app") == []
    assert not os.path.exists(daemon.paths.state)


def test_term_during_a_flush_that_hangs_ends_in_time_and_the_lines_go_out_later(
    faulty: FaultyBackend, daemon: Daemon
) -> None:
    faulty.fail("hang-before-reading", path="/agent/logs", times=0)
    daemon.configure({"token": "t", "apiUrl": faulty.url})
    daemon.start()
    daemon.call("script:add", name="app", command="for n in 1 2 3; do echo line $n; done; sleep 900", cwd="/tmp")
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] == 3, "three lines in the buffer")
    assert daemon.stop() == 0
    faulty.clear()
    daemon.start()
    faulty.wait_for(entries=3)
    said = [e["message"] for e in faulty.received().entries if e["source"] == "app"]
    assert said[:3] == ["line 1", "line 2", "line 3"]
