"""Owns what a container may use and uses: memory and CPU limits of cgroup v1 and v2.

Knows nothing of the machine's own figures; it reads files below the cgroup mount only.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

# v1 writes "no limit" as the largest multiple of a page below 2^63.
_UNLIMITED_V1 = 1 << 62


class Limits(NamedTuple):
    """What one container may use; None where that resource has no limit."""

    memory_bytes: int | None
    cpus: float | None


class Usage(NamedTuple):
    """What it uses: memory without what the kernel can drop at once (inactive file pages), CPU time."""

    memory_bytes: int | None
    cpu_s: float | None


class Container:
    """The cgroup of the container that this process is in.

    Only the top of the visible cgroup tree counts: there a container runtime writes the container's limits,
    while the top of a host has none. A limit further down (MemoryMax= of the agent's own unit) bounds the
    agent and says nothing of the machine.
    """

    def __init__(self, folder: str = "/sys/fs/cgroup") -> None:
        self._folder = folder

    def limits(self) -> Limits | None:
        """Return the limits in force, None outside of any."""
        memory = _first(self._numbers("memory.max", "memory/memory.limit_in_bytes"))
        found = Limits(memory if memory and memory < _UNLIMITED_V1 else None, self._cpus())
        return None if found == Limits(None, None) else found

    def usage(self) -> Usage:
        """Return what the container uses now."""
        return Usage(self._memory_bytes(), self._cpu_s())

    def _cpus(self) -> float | None:
        quota, _, period = (self._read("cpu.max") or "max").partition(" ")
        if quota == "max":
            quota = self._read("cpu/cpu.cfs_quota_us") or "-1"
            period = self._read("cpu/cpu.cfs_period_us") or "0"
        try:
            cpus = int(quota) / int(period)
        except (ValueError, ZeroDivisionError):
            return None
        return cpus if cpus > 0 else None

    def _memory_bytes(self) -> int | None:
        used = _first(self._numbers("memory.current", "memory/memory.usage_in_bytes"))
        if used is None:
            return None
        droppable = self._stat("memory.stat", "inactive_file")
        if droppable is None:
            droppable = self._stat("memory/memory.stat", "total_inactive_file")
        return max(used - (droppable or 0), 0)

    def _cpu_s(self) -> float | None:
        usec = self._stat("cpu.stat", "usage_usec")
        if usec is not None:
            return usec / 1e6
        nsec = _first(self._numbers("cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage"))
        return None if nsec is None else nsec / 1e9

    def _numbers(self, *names: str) -> Iterator[int]:
        for name in names:
            text = self._read(name)
            if text is not None and text.isdigit():  # "max" and absence are no numbers
                yield int(text)

    def _stat(self, name: str, key: str) -> int | None:
        for line in (self._read(name) or "").splitlines():
            word, _, value = line.partition(" ")
            if word == key and value.isdigit():
                return int(value)
        return None

    def _read(self, name: str) -> str | None:
        try:
            with open(os.path.join(self._folder, name), encoding="ascii") as file:
                return file.read().strip()
        except (OSError, ValueError):
            return None


def _first(numbers: Iterator[int]) -> int | None:
    return next(numbers, None)
