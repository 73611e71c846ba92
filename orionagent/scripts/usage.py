"""Owns what the scripts' process trees use, and the watch over those that have a limit.

Knows nothing of who asks, nor of what follows when a script is over its limit.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import gevent
import msgspec

from orionagent.scripts.process import Process
from orionagent.scripts.tree import CLOCK_TICKS, Census, total_rss_bytes
from orionagent.tasks import Task, TaskGroup

log = logging.getLogger(__name__)

FRESH_S = 1.0
CHECK_S = 5.0
MIB = 1 << 20


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a script's whole tree uses; the share of one CPU is None until there is an earlier reading."""

    pids: tuple[int, ...] = ()
    cpu_percent: float | None = None
    memory_mb: float | None = None


def cpu_percent(before: tuple[float, int] | None, now_s: float, ticks: int) -> float | None:
    """Return the share between two readings of (seconds, ticks); None when members left and took their ticks along."""
    if before is None or ticks < before[1] or now_s <= before[0]:
        return None
    return round((ticks - before[1]) / CLOCK_TICKS / (now_s - before[0]) * 100, 1)


class Meter:
    """Sole writer of the last reading; `look` at the processes is taken at most once a second."""

    def __init__(self, look: Callable[[], Census]) -> None:
        self._look = look
        self._last: dict[str, Usage] = {}
        self._read_at = float("-inf")
        self._cpu_before: dict[str, tuple[float, int]] = {}

    def read(self, trees: Mapping[str, Process]) -> Mapping[str, Usage]:
        """Return what each script's tree uses, by name; {} when /proc cannot be read."""
        now = time.monotonic()
        if now - self._read_at < FRESH_S and trees.keys() == self._last.keys():
            return self._last
        try:
            census = self._look() if trees else None
        except OSError as error:
            log.warning("cannot look at the processes: %s", error)
            return {}
        found = {}
        for name, process in trees.items():
            members = process.members(census)
            ticks = sum(stat.cpu_ticks for stat in members)
            found[name] = Usage(
                pids=tuple(stat.pid for stat in members),
                cpu_percent=cpu_percent(self._cpu_before.get(name), now, ticks),
                memory_mb=round(total_rss_bytes(members) / MIB, 1),
            )
            self._cpu_before[name] = (now, ticks)
        self._last, self._read_at = found, now
        return found


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A script's memory limit; `process` is None while it does not run, `exceed` is called when it uses more."""

    script: str
    memory_mb: int
    process: Process | None
    exceed: Callable[[], None]


class MemoryWatch:
    """Samples the trees of scripts that have a limit, and sleeps for good while none has one."""

    def __init__(self, limits: Callable[[], Sequence[Limit]], look: Callable[[], Census], tasks: TaskGroup) -> None:
        self._limits = limits
        self._look = look
        self._tasks = tasks
        self._task: Task | None = None

    def wake(self) -> None:
        """Start sampling unless that is going on; call whenever a script may have got a limit."""
        if self._task is None:
            self._task = self._tasks.spawn("memory limits", self._watch)

    def _watch(self) -> None:
        while limits := self._sleep():
            running = [(limit, limit.process) for limit in limits if limit.process is not None]
            census = self._look() if running else None
            for limit, process in running:
                used_mb = total_rss_bytes(process.members(census)) / MIB
                if used_mb > limit.memory_mb:
                    log.warning("%s uses %.0f MiB, its limit is %d: ending it", limit.script, used_mb, limit.memory_mb)
                    limit.exceed()
        self._task = None

    def _sleep(self) -> Sequence[Limit]:
        gevent.sleep(CHECK_S)
        return self._limits()
