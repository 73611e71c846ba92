"""A life that an earlier agent began goes on where it was, and only ever with the process that was recorded."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from orionagent.scripts.adoption import FoundRun, find_run, resume
from orionagent.scripts.handover import ScriptRecord
from orionagent.scripts.kernel import open_pidfd
from orionagent.scripts.lifecycle import Delay, EndTree, Life, Phase, Start, TreeGone
from orionagent.scripts.tree import read_stat

P = Phase
NOW_S = 100.0

TABLE: list[tuple[dict[str, Any], bool, Life, tuple[Any, ...], Any]] = [
    # record, does it name a process; life, actions, event
    ({"phase": "stopped"}, False, Life(), (), None),
    ({"phase": "stopped", "tree": True}, True, Life(tree=True), (), None),
    ({"phase": "starting", "tree": True}, True, Life(phase=P.RUNNING, tree=True), (), None),
    ({"phase": "starting"}, True, Life(phase=P.RUNNING, tree=True), (), None),
    ({"phase": "starting"}, False, Life(phase=P.STOPPED), (), Start()),
    ({"phase": "running", "tree": True, "restarts": 4}, True, Life(phase=P.RUNNING, tree=True, restarts=4), (), None),
    (
        {"phase": "backoff", "crashes": 2, "next_start_at": 101.5},
        False,
        Life(phase=P.BACKOFF, crashes=2),
        (Delay(1500.0),),
        None,
    ),
    ({"phase": "backoff", "next_start_at": 99.0}, False, Life(phase=P.BACKOFF), (Delay(0.0),), None),
    ({"phase": "backoff"}, False, Life(phase=P.BACKOFF), (Delay(0.0),), None),
    (
        {"phase": "backoff", "tree": True, "next_start_at": 100.0},
        True,
        Life(phase=P.BACKOFF, tree=True),
        (Delay(0.0), EndTree()),
        None,
    ),
    (
        {"phase": "backoff", "tree": True, "next_start_at": 100.0},
        False,
        Life(phase=P.BACKOFF, tree=True),
        (Delay(0.0),),
        TreeGone(),
    ),
    (
        {"phase": "stopping", "tree": True, "again": True},
        True,
        Life(phase=P.STOPPING, tree=True, again=True),
        (EndTree(),),
        None,
    ),
    ({"phase": "stopping"}, False, Life(phase=P.STOPPING), (), TreeGone()),
    ({"phase": "crashed", "tree": True}, True, Life(phase=P.CRASHED, tree=True), (EndTree(),), None),
    ({"phase": "crashed", "tree": True}, False, Life(phase=P.CRASHED, tree=True), (), TreeGone()),
    ({"phase": "crashed", "crashes": 5}, False, Life(phase=P.CRASHED, crashes=5), (), None),
]


@pytest.mark.parametrize(("record", "has_process", "life", "actions", "event"), TABLE)
def test_nothing_is_left_half_done(
    record: dict[str, Any], has_process: bool, life: Life, actions: tuple[Any, ...], event: Any
) -> None:
    found = resume(ScriptRecord(name="app", definition={}, **record), has_process=has_process, now_s=NOW_S)
    assert found == (life, actions, event)


def test_every_phase_is_in_the_table() -> None:
    assert {record["phase"] for record, *_ in TABLE} == {str(phase) for phase in Phase}


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "900"]) as found:
        yield found
        found.kill()


def start_of(process: "subprocess.Popen[bytes]") -> int:
    stat = read_stat(process.pid)
    assert stat is not None
    return stat.start_ticks


def facts(found: FoundRun) -> tuple[bool, bool, bool]:
    os.close(found.pidfd)
    return found.is_traceable, found.is_alive, found.is_child


def test_the_recorded_process_is_found_with_and_without_a_kept_descriptor(
    process: "subprocess.Popen[bytes]",
) -> None:
    assert facts(find_run(process.pid, start_of(process), lambda: None)) == (True, True, True)
    kept = open_pidfd(process.pid)
    found = find_run(process.pid, start_of(process), lambda: kept)
    assert found.pidfd == kept
    assert facts(found) == (True, True, True)


def test_a_stranger_with_the_same_number_is_not_taken_for_it(process: "subprocess.Popen[bytes]") -> None:
    assert facts(find_run(process.pid, start_of(process) - 1, lambda: None)) == (False, False, False)


def test_a_kept_descriptor_of_another_run_is_closed(process: "subprocess.Popen[bytes]") -> None:
    other = open_pidfd(os.getpid())
    found = find_run(process.pid, start_of(process), lambda: other)
    assert found.pidfd != other or os.readlink(f"/proc/self/fd/{other}") == "anon_inode:[pidfd]"
    assert facts(found) == (True, True, True)


def test_a_process_that_is_gone_leaves_a_descriptor_that_says_so_at_once(
    process: "subprocess.Popen[bytes]",
) -> None:
    start_ticks = start_of(process)
    process.kill()
    process.wait()
    found = find_run(process.pid, start_ticks, lambda: None)
    assert os.read(found.pidfd, 1) == b""
    assert facts(found) == (False, False, False)
