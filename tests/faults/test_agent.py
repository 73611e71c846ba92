"""What can befall the agent itself: its applications go on, and it comes back or says why not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest

from orionagent.scripts.tree import read_stat
from tests.end_to_end.daemon import REPOSITORY, Daemon, wait_until
from tests.faults.fdstore import StoredDaemon
from tests.faults.fixtures import FaultyBackend
from tests.scripts.house import alive

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
QUIET = {"remoteCommands": False}

BROKEN_PART = """
import sys
from orionagent.agent import Agent
from orionagent.paths import Paths

class Broken(Agent):
    def _start(self):
        super()._start()
        self._tasks.spawn("the unlucky part", self._fail)

    def _fail(self):
        raise RuntimeError("as the test wants it")

sys.exit(Broken(Paths(sys.argv[1])).run())
"""

DIES_BEFORE_RECORDING = """
import os, signal, sys
from orionagent.config import parse_script
from orionagent.scripts.spawn import make_plan, spawn

def die(pid):
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

config = parse_script({"name": "app", "command": "touch " + sys.argv[1], "cwd": "/tmp"})
spawn(config, make_plan(config, "agent"), 1, 2, die)
"""


def test_last_words_and_exit_code_of_a_script_that_ends_while_the_agent_is_down_arrive(
    faulty: FaultyBackend, stored: StoredDaemon, root: Path, heir: None
) -> None:
    stored.configure({"token": "t", "apiUrl": faulty.url})
    stored.start()
    command = f"echo first; while [ ! -e {root}/go ]; do sleep 0.05; done; echo last words; printf tail; exit 7"
    pid = stored.call("script:add", name="app", command=command, cwd="/tmp", autoRestart=False)["pid"]
    faulty.wait_for(entries=1)
    wait_until(lambda: {"app.pid", "app.stdout", "app.stderr"} <= {name for name, _ in stored.kept}, "the store")
    stored.kill()
    (root / "go").touch()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7  # in init's place, who has to reap it first
    stored.start()
    wait_until(lambda: stored.row("app")["phase"] == "crashed", "the end is noticed")
    if KERNEL >= (6, 15):
        assert stored.row("app")["lastExit"]["code"] == 7
    faulty.wait_for(entries=3, alerts=1)
    assert [e["message"] for e in faulty.received().entries if e["source"] == "app"] == ["first", "last words", "tail"]
    wait_until(lambda: "app.pid" not in {name for name, _ in stored.kept}, "the ended process leaves the store")


def test_a_part_that_dies_ends_the_agent_by_name_and_the_next_one_finds_the_applications(
    daemon: Daemon, root: Path
) -> None:
    daemon.configure(QUIET, [{"name": "app", "command": "sleep 900", "cwd": "/tmp"}])
    daemon.start()
    pid = daemon.row("app")["pid"]
    daemon.kill()
    broken = subprocess.Popen(
        [sys.executable, "-c", BROKEN_PART, str(root)], cwd=REPOSITORY, env=daemon.environment, stderr=subprocess.PIPE
    )
    pool = gevent.get_hub().threadpool
    _, said = pool.apply(broken.communicate, (None, 30.0))
    assert broken.returncode == 1
    assert b"the unlucky part" in said
    assert alive(pid)
    daemon.start()
    assert daemon.row("app")["pid"] == pid


def test_a_child_whose_agent_dies_before_it_is_recorded_never_becomes_the_program(root: Path) -> None:
    mark = root / "ran"
    agent = subprocess.Popen(
        [sys.executable, "-c", DIES_BEFORE_RECORDING, str(mark)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    with agent.stdout:
        said = agent.stdout.readline()
    assert agent.wait() == -signal.SIGKILL
    wait_until(lambda: not alive(int(said)), "the end of the child")
    assert not mark.exists()


def test_a_deleted_socket_comes_back(daemon: Daemon) -> None:
    daemon.configure(QUIET)
    daemon.start()
    os.unlink(daemon.paths.socket)
    wait_until(daemon.answers, "the socket again")


def test_callers_that_leave_mid_reply_and_followers_that_never_read_disturb_nobody(
    faulty: FaultyBackend, daemon: Daemon
) -> None:
    daemon.configure(
        {"token": "t", "apiUrl": faulty.url, "heartbeatInterval": 1000},
        [{"name": "loud", "command": "yes a line that nobody reads", "cwd": "/tmp"}],
    )
    daemon.start()
    links = []
    for _ in range(20):
        link = socket.socket(socket.AF_UNIX)
        link.connect(daemon.paths.socket)
        link.sendall(json.dumps({"cmd": "logs:tail", "follow": True, "lines": 1000}).encode() + b"\n")
        links.append(link)
    for link in links[:10]:
        link.recv(10)
        link.close()
    assert daemon.row("loud")["phase"] == "running"
    began, beats = time.monotonic(), len(faulty.received().heartbeats)
    faulty.wait_for(heartbeats=beats + 2)
    settled = memory_mb(daemon)
    faulty.wait_for(heartbeats=beats + 5)
    assert time.monotonic() - began < 10  # six slots of a second
    assert memory_mb(daemon) - settled < 30
    assert daemon.row("loud")["phase"] == "running"
    assert daemon.call("status")["host"] is not None
    for link in links[10:]:
        link.close()


def memory_mb(daemon: Daemon) -> float:
    """Return the daemon's resident memory."""
    assert daemon.process is not None
    stat = read_stat(daemon.process.pid)
    assert stat is not None
    return stat.rss_bytes / (1 << 20)


def test_after_and_the_full_view_of_a_script(daemon: Daemon) -> None:
    daemon.configure(
        QUIET,
        [
            {"name": "web", "command": "sleep 901 & sleep 900", "cwd": "/tmp", "after": ["db"]},
            {"name": "db", "command": "sleep 900", "cwd": "/tmp", "env": {"KEY": "value"}},
        ],
    )
    daemon.start()
    wait_until(lambda: daemon.row("web")["phase"] == "running", "both run")
    web, db = daemon.call("script:show", name="web"), daemon.call("script:show", name="db")  # in this order: both age
    assert db["uptimeSeconds"] >= web["uptimeSeconds"]
    wait_until(lambda: len(daemon.call("script:show", name="web")["tree"]) == 3, "shell and both children")
    web = daemon.call("script:show", name="web")
    assert web["pid"] == web["tree"][0]["pid"]
    assert all(process["fds"] and process["memoryMb"] is not None for process in web["tree"])
    assert {"restarts", "lastExit", "nextRestartSeconds", "cpuPercent", "memoryMb"} <= set(web)
    assert daemon.cli("script", "show", "web").returncode == 0
    assert daemon.stop() == 0
    log = daemon.log()
    assert log.index(f"web (pid {web['pid']})") < log.index(f"db (pid {db['pid']})")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_group_and_supplementary_groups_are_the_users(faulty: FaultyBackend, daemon: Daemon) -> None:
    daemon.configure({"token": "t", "apiUrl": faulty.url})
    daemon.start()
    daemon.call("script:add", name="who", command="id -un; id -gn; id -G", cwd="/tmp", user="nobody", group="daemon")
    faulty.wait_for(entries=3)
    said = [e["message"] for e in faulty.received().entries if e["source"] == "who"]
    assert said[:2] == ["nobody", "daemon"]
    assert "0" not in said[2].split()
