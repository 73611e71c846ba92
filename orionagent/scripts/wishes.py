"""Owns the requests that wait until what they ask of a script has come true, or has not.

Knows nothing of how a script is started and ended.
"""

from gevent.event import AsyncResult

from orionagent.errors import Busy, OrionError, SpawnError
from orionagent.scripts.endings import Ending
from orionagent.scripts.lifecycle import Phase

UNSETTLED = (Phase.STARTING, Phase.STOPPING)


def find_fault(
    *, script: str, wants_run: bool, phase: Phase, failed_start: SpawnError | None, last: Ending | None
) -> OrionError | None:
    """Return why a wish has not come true in a `phase` that lasts; None when it has.

    A script that has already run to a clean end was started all the same.
    """
    running = phase is Phase.RUNNING
    if not wants_run:
        return Busy(f"{script} was started again while it was being stopped") if running else None
    ended_well = phase is Phase.STOPPED and last is not None and last.code == 0
    if running or ended_well:
        return None
    return failed_start or SpawnError(f"{script} did not stay up: {last.text if last else 'it never ran'}")


class Wishes:
    """The open requests of one script."""

    def __init__(self) -> None:
        self._open: list[tuple[bool, AsyncResult[None]]] = []

    def __repr__(self) -> str:
        return f"Wishes({len(self._open)} open)"

    def add(self, *, wants_run: bool) -> "AsyncResult[None]":
        """Return the outcome to wait for."""
        outcome: AsyncResult[None] = AsyncResult()
        self._open.append((wants_run, outcome))
        return outcome

    def settle(self, *, script: str, phase: Phase, failed_start: SpawnError | None, last: Ending | None) -> None:
        """Answer all, unless the script is on its way from one phase to another."""
        if phase in UNSETTLED:
            return
        settled, self._open = self._open, []
        for wants_run, outcome in settled:
            fault = find_fault(script=script, wants_run=wants_run, phase=phase, failed_start=failed_start, last=last)
            if fault is None:
                outcome.set(None)
            else:
                outcome.set_exception(fault)
