"""What the machine can do to the agent and its scripts: its clock is set, its processes run out."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.fixtures import FaultyBackend

CLOCK_THAT_IS_SET = """
import os, sys, time
real = time.time

def shifted():
    with open(sys.argv[1]) as file:
        return real() + float(file.read() or 0)

time.time = shifted
from orionagent.agent import Agent
from orionagent.paths import Paths
sys.exit(Agent(Paths(os.environ["ORION_ROOT"])).run())
"""

NOBODYS_UID = 54321  # of a user who has no process yet

WITHOUT_PRIVILEGES = f"""
import codecs, os, sys
from orionagent.agent import Agent
from orionagent.paths import Paths
for encoding in ("ascii", "idna", "latin-1", "utf-8-sig"):
    codecs.lookup(encoding)  # afterwards the interpreter's own files may be out of reach
os.setgroups([])
os.setgid({NOBODYS_UID})
os.setuid({NOBODYS_UID})
sys.exit(Agent(Paths(os.environ["ORION_ROOT"])).run())
"""

LIMIT_PROCESSES = f"""
import os, resource, sys
agent, soft = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setgid({NOBODYS_UID})
os.setuid({NOBODYS_UID})
_, hard = resource.prlimit(agent, resource.RLIMIT_NPROC)
resource.prlimit(agent, resource.RLIMIT_NPROC, (soft if soft > 0 else hard, hard))
"""


def test_a_clock_that_is_set_by_an_hour_moves_neither_backoff_nor_uptime_nor_heartbeats(
    faulty: FaultyBackend, daemon: Daemon, root: Path
) -> None:
    shift = root / "shift"
    shift.write_text("0", encoding="ascii")
    daemon.launcher = (sys.executable, "-c", CLOCK_THAT_IS_SET, str(shift))
    daemon.configure(
        {"token": "t", "apiUrl": faulty.url, "heartbeatInterval": 1000},
        [
            {"name": "flappy", "command": "sleep 0.2; exit 3", "cwd": "/tmp", "backoffBase": 500, "maxRestarts": 99},
            {"name": "steady", "command": "sleep 900", "cwd": "/tmp"},
        ],
    )
    daemon.start()
    wait_until(lambda: daemon.row("flappy")["phase"] == "backoff", "the first backoff")
    began = time.monotonic()
    for hours in (1, -1, 0):
        before, restarts = daemon.row("steady")["uptimeSeconds"], daemon.row("flappy")["restarts"]
        beats = len(faulty.received().heartbeats)
        moved = time.monotonic()
        shift.write_text(str(hours * 3600), encoding="ascii")
        wait_until(lambda least=restarts: daemon.row("flappy")["restarts"] > least, "another restart")  # type: ignore[misc]
        faulty.wait_for(heartbeats=beats + 2)
        passed = time.monotonic() - moved
        row = daemon.row("flappy")
        assert (row["nextRestartSeconds"] or 0) <= 60
        assert 0 <= daemon.row("steady")["uptimeSeconds"] - before <= time.monotonic() - moved + 0.2
        assert len(faulty.received().heartbeats) - beats <= passed + 2  # no slot is made up for
        told = datetime.fromisoformat(faulty.received().heartbeats[-1]["timestamp"])
        assert abs(told.timestamp() - time.time() - hours * 3600) < 60  # it really was set
    assert time.monotonic() - began < 60
    assert daemon.members("steady") == [daemon.row("steady")["pid"]]


def limit_processes(agent: int, soft: int) -> None:
    """Set how many processes the agent's user may have, 0: as many as ever; only that user itself may do that."""
    subprocess.run([sys.executable, "-c", LIMIT_PROCESSES, str(agent), str(soft)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit of another user's processes needs another user")
def test_a_shortage_of_processes_passes_and_meanwhile_the_agent_answers_and_reports(
    faulty: FaultyBackend, daemon: Daemon, root: Path
) -> None:
    daemon.launcher = (sys.executable, "-c", WITHOUT_PRIVILEGES)
    script = {"name": "app", "command": "sleep 900", "cwd": "/tmp", "backoffBase": 50, "maxRestarts": 2}
    daemon.configure({"token": "t", "apiUrl": faulty.url, "heartbeatInterval": 1000}, [script])
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODYS_UID, NOBODYS_UID)
    daemon.start()
    assert daemon.process is not None
    pid = daemon.row("app")["pid"]
    limit_processes(daemon.process.pid, 1)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.row("app")["restarts"] > 3, "more tries than a broken program would get")
    row = daemon.row("app")
    assert (
        row["lastExit"]["text"] == "cannot run app: cannot set up the process (app): Resource temporarily unavailable"
    )
    assert (row["phase"], row["pid"]) == ("backoff", None)
    faulty.wait_for(heartbeats=len(faulty.received().heartbeats) + 2, alerts=3)
    limit_processes(daemon.process.pid, 0)
    wait_until(lambda: daemon.row("app")["pid"] not in (None, pid), "a new instance")
