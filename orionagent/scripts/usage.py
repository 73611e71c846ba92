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
LEAST_SPAN_S = 0.5
CHECK_S = 5.0
MIB = 1 << 20


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a script's whole tree uses; `cpu_percent` is of one CPU, None while that is not known."""

    pids: tuple[int, ...] = ()
    cpu_percent: float | None = None
    memory_mb: float | None = None


class CpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """How many ticks a run had used at a moment (seconds of CLOCK_BOOTTIME), and the share up to then."""

    run: tuple[int, int]
    at_s: float
    ticks: int
    percent: float | None = None


def first_reading(pid: int, start_ticks: int) -> CpuReading:
    """Return what a run had used when it began."""
    return CpuReading(run=(pid, start_ticks), at_s=start_ticks / CLOCK_TICKS, ticks=0)


def next_reading(before: CpuReading, now_s: float, ticks: int) -> CpuReading:
    """Return the reading of now; too soon after the one before that one stands, for ticks are coarse."""
    passed_s = now_s - before.at_s
    if passed_s < LEAST_SPAN_S:
        return before
    used = ticks - before.ticks  # below zero when members have left and taken along what they used
    percent = round(used / CLOCK_TICKS / passed_s * 100, 1) if used >= 0 else None
    return CpuReading(run=before.run, at_s=now_s, ticks=ticks, percent=percent)


class Meter:
    """Sole writer of the last readings; `look` at the processes is taken at most once a second."""

    def __init__(self, look: Callable[[], Census]) -> None:
        self._look = look
        self._last: dict[str, Usage] = {}
        self._read_at = float("-inf")
        self._cpu: dict[str, CpuReading] = {}

    def read(self, trees: Mapping[str, Process]) -> Mapping[str, Usage]:
        """Return what each script's tree uses, by name; {} when /proc cannot be read."""
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        if now_s - self._read_at < FRESH_S and trees.keys() == self._last.keys():
            return self._last
        try:
            census = self._look() if trees else None
            self._last = {name: self._measure(name, process, census, now_s) for name, process in trees.items()}
        except OSError as error:
            log.warning("cannot look at the processes: %s", error)
            return {}
        self._cpu = {name: self._cpu[name] for name in trees}
        self._read_at = now_s
        return self._last

    def _measure(self, name: str, process: Process, census: Census | None, now_s: float) -> Usage:
        members = process.members(census)
        before = self._cpu.get(name)
        if before is None or before.run != (process.pid, process.start_ticks):
            before = first_reading(process.pid, process.start_ticks)
        self._cpu[name] = next_reading(before, now_s, sum(stat.cpu_ticks for stat in members))
        return Usage(
            pids=tuple(stat.pid for stat in members),
            cpu_percent=self._cpu[name].percent,
            memory_mb=round(total_rss_bytes(members) / MIB, 1),
        )


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
            try:
                self._check([limit for limit in limits if limit.process is not None])
            except OSError as error:  # out of descriptors: the next look may succeed
                log.warning("cannot look at the processes: %s", error)
        self._task = None

    def _sleep(self) -> Sequence[Limit]:
        gevent.sleep(CHECK_S)
        return self._limits()

    def _check(self, running: Sequence[Limit]) -> None:
        census = self._look() if running else None
        for limit in running:
            assert limit.process is not None
            used_mb = total_rss_bytes(limit.process.members(census)) / MIB
            if used_mb > limit.memory_mb:
                log.warning("%s uses %.0f MiB, its limit is %d: ending it", limit.script, used_mb, limit.memory_mb)
                limit.exceed()
