"""Owns the care of the journal between appends: when it is synced, rewritten, and tried again.

Knows nothing of entries or of the backend: whether somebody would miss the unsynced ones is a question it asks.
"""

import logging
from collections.abc import Callable

import gevent
from gevent.event import Event

from orionagent.logs.custody import DISK_RETRY_S, Custody
from orionagent.tasks import Task, TaskGroup

log = logging.getLogger(__name__)

ROUND_S = 0.5
"""Between looks at whether appended entries should go to the disk; only while some wait."""

PLACE_S = 5.0
PATIENCE_S = 10.0


class Tender:
    """Runs the greenlet `ship:disk`, which does the disk's slow work in another thread, and rests when none is due.

    `has_entries` tells whether anything waits, `at_risk` whether it waits for long: then it should be on the disk.
    """

    def __init__(
        self,
        custody: Custody,
        *,
        has_entries: Callable[[], bool],
        at_risk: Callable[[float], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._custody = custody
        self._has_entries = has_entries
        self._at_risk = at_risk
        self._monotonic = monotonic
        self._halt = Event()
        self._task: Task | None = None
        self._place_due_s = 0.0
        self.wanted = Event()

    def start(self, tasks: TaskGroup) -> None:
        """Begin, with a look at what the start left to do."""
        self._task = tasks.spawn("ship:disk", self._run)
        self.wanted.set()

    def stop(self) -> None:
        """Let the work under way end, for 10 s at most: killing it would leave it running in the other thread."""
        self._halt.set()
        self.wanted.set()
        if self._task is not None:
            self._task.join(timeout=PATIENCE_S)

    def _run(self) -> None:
        custody = self._custody
        run = gevent.get_hub().threadpool.apply
        while True:
            self.wanted.wait()
            if self._halt.wait(ROUND_S if custody.refused is None else DISK_RETRY_S):
                return
            now = self._monotonic()
            if now >= self._place_due_s:
                self._place_due_s = now + PLACE_S
                if not custody.is_in_place():
                    log.error("the buffer file was removed or replaced; writing it anew")
                    custody.compact(run)
            if custody.needs_compaction:
                custody.compact(run)
            if self._unsynced() and self._at_risk(now):
                custody.sync(run)
            if custody.ready() and not self._unsynced() and not self._halt.is_set():
                self.wanted.clear()

    def _unsynced(self) -> bool:
        return self._custody.unsynced and self._has_entries()
