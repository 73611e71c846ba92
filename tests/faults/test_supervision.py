"""What supervision promises under load, measured against the real daemon; each test prints its figures."""

import contextlib
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import gevent
import pytest

from bench.machine import run_ms
from tests.end_to_end.daemon import ORION, Daemon, another_version, wait_until
from tests.faults.fdstore import StoredDaemon
from tests.faults.fixtures import FaultyBackend
from tests.faults.harness import LOGS, Campaign, Outcome

pytestmark = pytest.mark.soak

RATE = 20_000
REPLACEMENTS = 10
KILLS = 50
DOWN_S = 2.0
LONGEST_GAP_S = 1.0
CROWD = 50
FLAPPING = 10
FLAPPING_KILLS = 25
LONGEST_ANSWER_MS = 200.0


@contextlib.contextmanager
def campaign_with(daemon: Daemon, root: Path) -> Iterator[Campaign]:
    with contextlib.closing(Campaign(daemon, root, 0)) as found:
        found.start(rate=RATE, ragged=False)
        yield found


def assert_whole(outcome: Outcome) -> None:
    """Every line is there, once and in its place, and nothing else came out of the child."""
    assert (outcome.lost, outcome.reported, outcome.twice, outcome.late) == (0, 0, 0, 0)
    assert outcome.remarks == []
    assert outcome.received == outcome.written


def show(what: str, outcome: Outcome, *more: str) -> None:
    print(f"\n{what}", f"  {outcome}", *(f"  {line}" for line in more), sep="\n")


def longest_gap_s(moments: list[float], begin: float, end: float) -> float:
    """Return the longest time without an arrival between two moments."""
    inside = [begin, *(at for at in moments if begin < at < end), end]
    return max(later - earlier for earlier, later in pairwise(inside))


def test_ten_replacements_lose_no_line_and_open_no_gap_of_a_second(daemon: Daemon, root: Path) -> None:
    with campaign_with(daemon, root) as campaign:
        assert daemon.process is not None
        agent, child = daemon.process.pid, daemon.row("writer")["pid"]
        spans, bare = [], []
        gevent.sleep(3.0)
        quiet = (time.monotonic() - 2.5, time.monotonic())
        for _ in range(REPLACEMENTS):
            began = time.monotonic()
            images = count_images(daemon)
            with another_version():
                assert daemon.cli("reload").returncode == 0
                wait_until(lambda seen=images: count_images(daemon) > seen, "the next image")  # type: ignore[misc]
            gevent.sleep(2.0)
            spans.append((began, time.monotonic()))
            bare.append(run_ms([sys.executable, "-c", "import orionagent.agent"])[0] / 1000)
        row = daemon.row("writer")
        outcome = campaign.finish()
        moments = [request.at_s for request in campaign.backend.received().requests if request.path.endswith(LOGS)]
    gaps = [longest_gap_s(moments, *span) for span in spans]
    show(
        f"{REPLACEMENTS} replacements at {RATE} lines a second",
        outcome,
        f"longest gap between arrivals: worst {max(gaps):.2f} s, median {statistics.median(gaps):.2f} s; "
        f"without a replacement {longest_gap_s(moments, *quiet):.2f} s",
        f"merely loading the agent: worst {max(bare):.2f} s, median {statistics.median(bare):.2f} s",
    )
    assert_whole(outcome)
    assert daemon.process.pid == agent
    assert (row["pid"], row["restarts"]) == (child, 0)
    # On a machine that is busy with other things, merely loading the program takes longer than usual.
    assert max(gaps) <= max(LONGEST_GAP_S, 2 * max(bare))


def count_images(daemon: Daemon) -> int:
    """Return how many images of the agent have started."""
    return Path(daemon.paths.root, "daemon.err").read_text(encoding="utf-8").count("orion agent")


def test_fifty_kills_lose_no_line_and_the_child_never_notices(stored: StoredDaemon, root: Path) -> None:
    draw = random.Random(4)
    with campaign_with(stored, root) as campaign:
        child = stored.row("writer")["pid"]
        wait_until(lambda: {"writer.pid", "writer.stdout"} <= {name for name, _ in stored.kept}, "the store")
        down, held_up = [], []
        for _ in range(KILLS):
            gevent.sleep(draw.uniform(0.0, 1.5))
            killed = time.monotonic()
            stored.kill()
            gevent.sleep(draw.uniform(0.0, DOWN_S - 0.5))
            stored.spawn()
            down.append(time.monotonic() - killed)
            wait_until(stored.answers, "the daemon answers")
            held_up.append(time.monotonic() - killed)
            row = stored.row("writer")
            assert (row["pid"], row["restarts"], row["phase"]) == (child, 0, "running")
        outcome = campaign.finish()
    show(
        f"{KILLS} kills at {RATE} lines a second",
        outcome,
        f"down for {statistics.median(down):.2f} s, at most {max(down):.2f} s; "
        f"answering again after {statistics.median(held_up):.2f} s, at most {max(held_up):.2f} s",
        f"the child was held up for {sum(took for _, took in campaign.held()):.2f} s in all",
    )
    assert_whole(outcome)
    assert max(down) <= DOWN_S


def test_the_command_line_answers_while_fifty_scripts_crash_together(daemon: Daemon) -> None:
    script = {"command": "sleep 900", "cwd": "/tmp", "backoffBase": 3000}
    daemon.configure({"remoteCommands": False}, [{"name": f"app-{n}", **script} for n in range(CROWD)])
    daemon.start()
    first = wait_until(lambda: running_pids(daemon), "all run")
    calm = [status_ms(daemon) for _ in range(20)]
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    busy, bare = [], []
    while not (again := running_pids(daemon)):
        busy.append(status_ms(daemon))
        bare.append(run_ms([sys.executable, "-I", "-S", "-c", "pass"])[0])
    figures = (
        f"\n`orion status` while {CROWD} scripts crash and come back, {len(busy)} calls: "
        f"median {statistics.median(busy):.0f} ms, slowest {max(busy):.0f} ms\n"
        f"  with all of them at rest: median {statistics.median(calm):.0f} ms, slowest {max(calm):.0f} ms; "
        f"a bare interpreter meanwhile: median {statistics.median(bare):.0f} ms, slowest {max(bare):.0f} ms"
    )
    print(figures)
    assert not again & first
    assert len(busy) > 5
    assert max(busy) < LONGEST_ANSWER_MS + max(bare)  # what a bare interpreter takes is the machine's own doing


def running_pids(daemon: Daemon) -> set[int]:
    """Return the main processes once every script has one."""
    pids = {row["pid"] for row in daemon.call("status")["scripts"]}
    return pids if len(pids) == CROWD and None not in pids else set()


def status_ms(daemon: Daemon) -> float:
    taken_ms, code = run_ms([ORION, "status"], daemon.environment)
    assert code == 0
    return taken_ms


def test_kills_while_scripts_crash_and_restart_never_make_a_second_instance(
    daemon: Daemon, faulty: FaultyBackend, root: Path, heir: None
) -> None:
    draw = random.Random(5)
    names = [f"app-{n}" for n in range(FLAPPING)]
    # Each holds a lock while it runs: whoever finds it taken is a second instance.
    command = "exec 9>>{0}/{1}.lock; flock -n 9 || echo {1} >>{0}/second; echo run >>{0}/runs; sleep 0.1; exit 3"
    script = {"cwd": "/tmp", "backoffBase": 20, "maxRestarts": 100_000, "minUptime": 1}
    daemon.configure(
        {"token": "t", "apiUrl": faulty.url},
        [{"name": name, "command": command.format(root, name), **script} for name in names],
    )
    daemon.start()
    restarts = dict.fromkeys(names, 0)
    for _ in range(FLAPPING_KILLS):
        gevent.sleep(draw.uniform(0.0, 0.6))
        daemon.kill()
        gevent.sleep(draw.uniform(0.0, 0.2))
        daemon.start()
        for row in daemon.call("status")["scripts"]:
            assert row["restarts"] >= restarts[row["name"]]
            restarts[row["name"]] = row["restarts"]
    for name in names:
        daemon.call("script:stop", name=name)
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] == 0, "every alert delivered")
    runs = len((root / "runs").read_text(encoding="ascii").split())
    alerts = [alert["id"] for alert in faulty.received().alerts]
    print(
        f"\n{FLAPPING_KILLS} kills while {FLAPPING} scripts crash and restart: {runs} runs, "
        f"{sum(restarts.values())} restarts counted, {len(alerts)} alerts, second instances: none"
    )
    assert not (root / "second").exists()
    assert min(restarts.values()) > 0
    assert len(set(alerts)) == len(alerts)
    assert runs - FLAPPING <= len(alerts) <= runs  # the last run of each may have been ended by the stop
