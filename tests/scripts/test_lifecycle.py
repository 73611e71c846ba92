"""Every (phase, event) pair has a decided outcome, and the rules hold over any history."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionagent.config import ScriptConfig
from orionagent.scripts.lifecycle import (
    REPORTED,
    CancelDelay,
    Delay,
    DelayElapsed,
    EndTree,
    Event,
    Exited,
    Life,
    Phase,
    Restart,
    SendAlert,
    Spawn,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    TreeGone,
    step,
)

CONFIG = ScriptConfig(name="a", command="true", backoffBase=1000, maxRestarts=3, minUptime=10_000)
CLEAN = Exited(clean=True, ran_ms=50, tree=False, draw=0.0)
CLEAN_LEAVING_TREE = Exited(clean=True, ran_ms=50, tree=True, draw=0.0)
CRASH = Exited(clean=False, ran_ms=50, tree=False, draw=0.0)
CRASH_LEAVING_TREE = Exited(clean=False, ran_ms=50, tree=True, draw=0.0)
LATE_CRASH = Exited(clean=False, ran_ms=20_000, tree=False, draw=0.0)
FAILED = SpawnFailed(transient=False, draw=0.0)
SHORT_OF_MEMORY = SpawnFailed(transient=True, draw=0.0)
P = Phase


def life(phase: Phase, **changes: Any) -> Life:
    return Life(phase=phase, **changes)


TABLE = [
    # before, event, phase after, actions
    (life(P.STOPPED), Start(), P.STARTING, (Spawn(),)),
    (life(P.STOPPED), Restart(), P.STARTING, (Spawn(),)),
    (life(P.STOPPED), Stop(), P.STOPPED, ()),
    (life(P.STOPPED, tree=True), Start(), P.STOPPING, (EndTree(),)),
    (life(P.STOPPED, tree=True), Stop(), P.STOPPING, (EndTree(),)),
    (life(P.STOPPED), Spawned(), P.STOPPED, ()),
    (life(P.STOPPED), FAILED, P.STOPPED, ()),
    (life(P.STOPPED), CRASH, P.STOPPED, ()),
    (life(P.STOPPED, tree=True), TreeGone(), P.STOPPED, ()),
    (life(P.STOPPED), DelayElapsed(), P.STOPPED, ()),
    (life(P.STARTING), Start(), P.STARTING, ()),
    (life(P.STARTING), Restart(), P.STARTING, ()),
    (life(P.STARTING), Stop(), P.STOPPING, (EndTree(),)),
    (life(P.STARTING), Spawned(), P.RUNNING, ()),
    (life(P.STARTING), FAILED, P.BACKOFF, (Delay(1000.0), SendAlert(1, 1000.0))),
    (life(P.STARTING, crashes=2), FAILED, P.CRASHED, (SendAlert(3, None),)),
    (life(P.STARTING, crashes=9), SHORT_OF_MEMORY, P.BACKOFF, (Delay(60_000.0), SendAlert(10, 60_000.0))),
    (life(P.STARTING), CRASH, P.BACKOFF, (Delay(1000.0), SendAlert(1, 1000.0))),
    (life(P.STARTING), TreeGone(), P.STARTING, ()),
    (life(P.STARTING), DelayElapsed(), P.STARTING, ()),
    (life(P.RUNNING, tree=True), Start(), P.RUNNING, ()),
    (life(P.RUNNING, tree=True), Restart(), P.STOPPING, (EndTree(),)),
    (life(P.RUNNING, tree=True), Stop(), P.STOPPING, (EndTree(),)),
    (life(P.RUNNING, tree=True), Spawned(), P.RUNNING, ()),
    (life(P.RUNNING, tree=True), FAILED, P.RUNNING, ()),
    (life(P.RUNNING, tree=True), CLEAN, P.STOPPED, ()),
    (life(P.RUNNING, tree=True), CLEAN_LEAVING_TREE, P.STOPPED, ()),
    (life(P.RUNNING, tree=True), CRASH, P.BACKOFF, (Delay(1000.0), SendAlert(1, 1000.0))),
    (life(P.RUNNING, tree=True, crashes=1), CRASH, P.BACKOFF, (Delay(2000.0), SendAlert(2, 2000.0))),
    (life(P.RUNNING, tree=True, crashes=2), CRASH, P.CRASHED, (SendAlert(3, None),)),
    (life(P.RUNNING, tree=True, crashes=2), LATE_CRASH, P.BACKOFF, (Delay(1000.0), SendAlert(1, 1000.0))),
    (life(P.RUNNING, tree=True), CRASH_LEAVING_TREE, P.BACKOFF, (EndTree(), Delay(1000.0), SendAlert(1, 1000.0))),
    (life(P.RUNNING, tree=True), TreeGone(), P.RUNNING, ()),
    (life(P.RUNNING, tree=True), DelayElapsed(), P.RUNNING, ()),
    (life(P.BACKOFF), Start(), P.STARTING, (CancelDelay(), Spawn())),
    (life(P.BACKOFF), Restart(), P.STARTING, (CancelDelay(), Spawn())),
    (life(P.BACKOFF, tree=True), Start(), P.STOPPING, (CancelDelay(),)),
    (life(P.BACKOFF), Stop(), P.STOPPED, (CancelDelay(),)),
    (life(P.BACKOFF, tree=True), Stop(), P.STOPPING, (CancelDelay(),)),
    (life(P.BACKOFF), Spawned(), P.BACKOFF, ()),
    (life(P.BACKOFF), FAILED, P.BACKOFF, ()),
    (life(P.BACKOFF), CRASH, P.BACKOFF, ()),
    (life(P.BACKOFF, tree=True), TreeGone(), P.BACKOFF, ()),
    (life(P.BACKOFF, tree=True, due=True), TreeGone(), P.STARTING, (Spawn(),)),
    (life(P.BACKOFF), DelayElapsed(), P.STARTING, (Spawn(),)),
    (life(P.BACKOFF, tree=True), DelayElapsed(), P.BACKOFF, ()),
    (life(P.STOPPING, tree=True), Start(), P.STOPPING, ()),
    (life(P.STOPPING, tree=True), Restart(), P.STOPPING, ()),
    (life(P.STOPPING, tree=True), Stop(), P.STOPPING, ()),
    (life(P.STOPPING, tree=True), Spawned(), P.STOPPING, ()),
    (life(P.STOPPING, tree=True), FAILED, P.STOPPING, ()),
    (life(P.STOPPING, tree=True), CRASH, P.STOPPING, ()),
    (life(P.STOPPING, tree=True), TreeGone(), P.STOPPED, ()),
    (life(P.STOPPING, tree=True, again=True), TreeGone(), P.STARTING, (Spawn(),)),
    (life(P.STOPPING, tree=True), DelayElapsed(), P.STOPPING, ()),
    (life(P.CRASHED), Start(), P.STARTING, (CancelDelay(), Spawn())),
    (life(P.CRASHED), Restart(), P.STARTING, (CancelDelay(), Spawn())),
    (life(P.CRASHED, tree=True), Start(), P.STOPPING, (CancelDelay(),)),
    (life(P.CRASHED), Stop(), P.STOPPED, (CancelDelay(),)),
    (life(P.CRASHED), Spawned(), P.CRASHED, ()),
    (life(P.CRASHED), FAILED, P.CRASHED, ()),
    (life(P.CRASHED), CRASH, P.CRASHED, ()),
    (life(P.CRASHED, tree=True), TreeGone(), P.CRASHED, ()),
    (life(P.CRASHED), DelayElapsed(), P.CRASHED, ()),
]


@pytest.mark.parametrize(("before", "event", "phase", "actions"), TABLE)
def test_the_table_decides(before: Life, event: Event, phase: Phase, actions: tuple[Any, ...]) -> None:
    after, done = step(before, event, CONFIG)
    assert (after.phase, done) == (phase, actions)


def test_no_pair_of_phase_and_event_is_left_out() -> None:
    kinds = {Start, Stop, Restart, Spawned, SpawnFailed, Exited, TreeGone, DelayElapsed}
    assert {(before.phase, type(event)) for before, event, _, _ in TABLE} == {(p, k) for p in Phase for k in kinds}
    assert set(REPORTED) == set(Phase)


def test_without_auto_restart_a_crash_still_alerts() -> None:
    config = msgspec.structs.replace(CONFIG, autoRestart=False)
    after, actions = step(life(P.RUNNING, tree=True), CRASH, config)
    assert after.phase is Phase.CRASHED
    assert actions == (SendAlert(1, None),)


def test_somebodys_start_forgets_earlier_crashes() -> None:
    after, _ = step(life(P.CRASHED, crashes=3), Start(), CONFIG)
    assert after.crashes == 0


def test_a_stop_outranks_the_restart_that_was_waiting() -> None:
    stopping, _ = step(life(P.RUNNING, tree=True), Restart(), CONFIG)
    after, _ = step(stopping, Stop(), CONFIG)
    assert step(after, TreeGone(), CONFIG)[0].phase is Phase.STOPPED


OF_SOMEBODY = (Start(), Stop(), Restart())
OF_THE_RUN = (Spawned(), FAILED, SHORT_OF_MEMORY, CLEAN, CLEAN_LEAVING_TREE, CRASH, CRASH_LEAVING_TREE, LATE_CRASH)
EVENTS = st.sampled_from([*OF_SOMEBODY, *OF_THE_RUN, TreeGone(), DelayElapsed()])


@given(st.lists(EVENTS, max_size=40))
def test_no_history_starts_a_second_instance(events: list[Event]) -> None:
    now = Life()
    for event in events:
        before = now
        now, actions = step(before, event, CONFIG)
        if Spawn() in actions:
            assert not now.tree
            assert now.phase is Phase.STARTING
            assert before.phase not in (Phase.RUNNING, Phase.STARTING)
        if any(isinstance(action, SendAlert) for action in actions):
            assert isinstance(event, (Exited, SpawnFailed))
        assert now.restarts >= before.restarts
