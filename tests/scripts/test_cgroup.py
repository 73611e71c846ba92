"""In a delegated cgroup nothing escapes: the real daemon in a cgroup of its own, and scripts that try to get away."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionagent.paths import Paths
from orionagent.scripts.cgroup import MemoryKills, Subtree, find_subtree
from orionagent.scripts.tree import is_alive, read_environment, read_stat
from tests.end_to_end.daemon import Daemon, wait_until

LAUNCHER = Path(__file__).with_name("delegated.py")
NAMESPACE = ("unshare", "--mount", "--propagation", "private", sys.executable, str(LAUNCHER))
# Another session, another parent, and not a variable of ours left.
FUGITIVE = "env -i setsid /bin/sh -c 'sleep 991 & exit 0'"


class Housed(Daemon):
    """A daemon in the cgroup `group`."""

    def __init__(self, paths: Paths, mark: str = "trusted.delegate") -> None:
        super().__init__(paths)
        self.group = f"or-test-{os.path.basename(paths.root)}"
        self.launcher = (*NAMESPACE, "run", self.group, mark)

    def leaves(self) -> list[str]:
        """Return the leaves there are, seen through the daemon's own mounts."""
        assert self.process is not None
        folder = Path(f"/proc/{self.process.pid}/root/sys/fs/cgroup/{self.group}")
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())

    def tree(self, name: str) -> dict[str, int]:
        """Return the pids of a script's tree by command line."""
        return {item["command"]: item["pid"] for item in self.call("script:show", name=name)["tree"]}

    def add(self, name: str, command: str, **fields: Any) -> dict[str, Any]:
        row: dict[str, Any] = self.call("script:add", name=name, command=command, cwd="/tmp", **fields)
        return row


def cgroup_of(pid: int) -> str:
    found = re.search(r"^0::(.*)$", Path(f"/proc/{pid}/cgroup").read_text(), re.MULTILINE)
    return found[1] if found else ""


def alive(pid: int) -> bool:
    return is_alive(read_stat(pid))


Start = Callable[[str], Housed]


@pytest.fixture
def start(paths: Paths) -> Iterator[Start]:
    """Yield what starts a daemon in a cgroup that has the given mark of delegation."""
    started: list[Housed] = []

    def begin(mark: str) -> Housed:
        housed = Housed(paths, mark)
        started.append(housed)
        probe = subprocess.run([*housed.launcher, "true"], capture_output=True, text=True, check=False)
        if probe.returncode != 0:
            pytest.skip(f"no cgroup v2 of our own here: {probe.stderr.strip().splitlines()[-1:]}")
        housed.configure({})
        housed.start()
        return housed

    try:
        yield begin
    finally:
        for housed in started:
            housed.close()
            subprocess.run([*NAMESPACE, "remove", housed.group], capture_output=True, check=False)


@pytest.fixture
def housed(start: Start) -> Housed:
    """Return a running daemon with a delegated cgroup."""
    return start("trusted.delegate")


def start_fugitive(housed: Housed) -> int:
    """Start the script `app`, return the pid of its process that fled."""
    housed.add("app", f"{FUGITIVE}; exec sleep 992")
    wait_until(lambda: {"sleep 991", "sleep 992"} <= set(housed.tree("app")), "both processes are shown")
    return housed.tree("app")["sleep 991"]


def test_a_process_that_fled_session_parent_and_environment_is_shown_and_ended_by_stop(housed: Housed) -> None:
    fugitive = start_fugitive(housed)
    stat = read_stat(fugitive)
    assert stat is not None
    assert stat.session not in (fugitive, housed.tree("app")["sleep 992"])
    assert "ORION_SCRIPT" not in read_environment(fugitive)
    assert housed.leaves() == ["script-app"]
    assert housed.call("script:stop", name="app")["phase"] == "stopped"
    assert not alive(fugitive)
    assert housed.leaves() == []


def test_a_crash_ends_what_fled_before_the_next_run(housed: Housed) -> None:
    fugitive = start_fugitive(housed)
    os.kill(housed.tree("app")["sleep 992"], 9)
    wait_until(lambda: not alive(fugitive), "the end of the one that fled")
    wait_until(lambda: housed.row("app")["restarts"] == 1 and housed.row("app")["phase"] == "running", "the next run")
    assert housed.leaves() == ["script-app"]


def test_the_next_agent_after_a_kill_finds_what_fled(housed: Housed) -> None:
    fugitive = start_fugitive(housed)
    main = housed.tree("app")["sleep 992"]
    housed.kill()
    housed.start()
    assert housed.row("app")["pid"] == main
    assert housed.tree("app")["sleep 991"] == fugitive
    housed.call("script:stop", name="app")
    assert not alive(fugitive)
    assert housed.leaves() == []


def test_what_an_exit_zero_leaves_behind_stays_in_its_leaf_until_it_is_stopped(housed: Housed) -> None:
    housed.add("app", FUGITIVE)
    wait_until(lambda: housed.row("app")["phase"] == "stopped", "the end of the main process")
    wait_until(lambda: list(housed.tree("app")) == ["sleep 991"], "only the one that fled is left")
    fugitive = housed.tree("app")["sleep 991"]
    wait_until(lambda: housed.row("app")["note"] == "1 processes left", "a row that says so")
    housed.call("script:stop", name="app")
    assert not alive(fugitive)
    assert housed.leaves() == []


def test_one_that_ignores_term_and_forks_on_ends_at_once_by_kill(housed: Housed) -> None:
    housed.add("app", "trap '' TERM; while :; do env -i setsid sleep 60 & sleep 0.01; done", stopTimeout=300)
    wait_until(lambda: len(housed.call("script:show", name="app")["tree"]) > 5, "some children")
    pids = [item["pid"] for item in housed.call("script:show", name="app")["tree"]]
    assert housed.call("script:stop", name="app")["phase"] == "stopped"
    assert not any(alive(pid) for pid in pids)
    assert housed.leaves() == []


def test_a_script_of_another_user_is_in_its_leaf_and_cannot_leave_it(housed: Housed) -> None:
    pid = housed.add("app", "sleep 993", user="nobody")["pid"]
    assert os.stat(f"/proc/{pid}").st_uid != 0
    assert cgroup_of(pid) == f"/{housed.group}/script-app"
    folder = f"/proc/{pid}/root/sys/fs/cgroup/{housed.group}/script-app"
    assert os.stat(f"{folder}/cgroup.procs").st_uid == 0


def test_a_removed_script_leaves_no_leaf_and_each_script_has_its_own(housed: Housed) -> None:
    housed.add("one", "sleep 994")
    housed.add("two", "sleep 995")
    assert housed.leaves() == ["script-one", "script-two"]
    housed.call("script:remove", name="one")
    assert housed.leaves() == ["script-two"]


def test_the_mark_of_a_user_manager_counts_as_well(start: Start) -> None:
    housed = start("user.delegate")
    pid = housed.add("app", "sleep 996")["pid"]
    assert cgroup_of(pid) == f"/{housed.group}/script-app"


def test_a_cgroup_that_is_not_delegated_is_left_as_it_is(start: Start) -> None:
    housed = start("none")
    pid = housed.add("app", "sleep 997")["pid"]
    assert cgroup_of(pid) == f"/{housed.group}"
    assert housed.leaves() == []
    housed.call("script:stop", name="app")
    assert not alive(pid)


def test_without_a_cgroup_of_its_own_there_is_a_subtree_without_leaves() -> None:
    assert find_subtree().folder is None  # the tests' own cgroup is nobody's to divide
    leaf = Subtree(None).leaf("app")
    assert leaf.open_entry() is None
    assert leaf.pids() == []
    assert not leaf.is_populated()
    assert leaf.remove()


def test_a_memory_kill_is_told_for_some_seconds_and_an_old_one_is_not(root: Path) -> None:
    now_s = 100.0
    (root / "memory.events").write_text("oom 7\noom_kill 3\n")
    kills = MemoryKills(str(root), lambda: now_s)
    assert not kills.struck_recently()
    (root / "memory.events").write_text("oom 9\noom_kill 4\n")
    assert kills.struck_recently()
    now_s += 6.0
    assert not kills.struck_recently()


def test_where_no_file_tells_of_memory_kills_none_is_told() -> None:
    assert not MemoryKills(None, time.monotonic).struck_recently()
    assert not MemoryKills("/nowhere", time.monotonic).struck_recently()
