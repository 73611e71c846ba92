"""Whoever asks for something is told once it has come true, or why it has not."""

import pytest

from orionagent.errors import Busy, OrionError, SpawnError
from orionagent.scripts.endings import Ending
from orionagent.scripts.lifecycle import Phase
from orionagent.scripts.wishes import UNSETTLED, Wishes, find_fault

P = Phase
CLEAN = Ending(text="exited with 0", cause="exit", at="", code=0)
CRASH = Ending(text="exited with 3", cause="exit", at="", code=3)
FAILED = SpawnError("cannot run app: no such folder")

TABLE: list[tuple[bool, Phase, SpawnError | None, Ending | None, str | None]] = [
    # wants it to run, phase, failed start, last end; what the caller is told
    (True, P.RUNNING, None, None, None),
    (True, P.RUNNING, None, CRASH, None),
    (True, P.STOPPED, None, CLEAN, None),
    (True, P.STOPPED, None, CRASH, "app did not stay up: exited with 3"),
    (True, P.STOPPED, None, None, "app did not stay up: it never ran"),
    (True, P.BACKOFF, None, CRASH, "app did not stay up: exited with 3"),
    (True, P.BACKOFF, FAILED, CRASH, FAILED.message),
    (True, P.CRASHED, FAILED, None, FAILED.message),
    (True, P.CRASHED, None, CLEAN, "app did not stay up: exited with 0"),
    (False, P.STOPPED, None, CRASH, None),
    (False, P.BACKOFF, None, CRASH, None),
    (False, P.CRASHED, FAILED, None, None),
    (False, P.RUNNING, None, None, "app was started again while it was being stopped"),
]


@pytest.mark.parametrize(("wants_run", "phase", "failed_start", "last", "told"), TABLE)
def test_a_wish_comes_true_or_has_a_reason(
    wants_run: bool, phase: Phase, failed_start: SpawnError | None, last: Ending | None, told: str | None
) -> None:
    fault = find_fault(script="app", wants_run=wants_run, phase=phase, failed_start=failed_start, last=last)
    assert (fault and fault.message) == told
    assert isinstance(fault, Busy if not wants_run else SpawnError) or fault is None


@pytest.mark.parametrize("phase", Phase)
def test_only_a_phase_that_lasts_settles_all_who_wait(phase: Phase) -> None:
    wishes = Wishes()
    start, stop = wishes.add(wants_run=True), wishes.add(wants_run=False)
    wishes.settle(script="app", phase=phase, failed_start=None, last=CRASH)
    settled = phase not in UNSETTLED
    assert (start.ready(), stop.ready()) == (settled, settled)
    if settled:
        failed = start if phase is not P.RUNNING else stop
        assert isinstance(failed.exception, OrionError)
        assert (stop if failed is start else start).successful()
