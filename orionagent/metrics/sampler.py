"""Owns the reading of the machine: one `HostSample` at a time, from psutil, /proc and /sys.

Knows nothing of heartbeats, scripts or the network it may travel over.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from orionagent.metrics.cgroup import Container, Limits
from orionagent.metrics.disk import DiskProbe
from orionagent.metrics.interfaces import physical_interfaces
from orionagent.metrics.rates import CpuTimes, Traffic, cpu_shares, traffic_rates, usage_share
from orionagent.wire import Cpu, HostSample, Memory, Network

log = logging.getLogger(__name__)

MIB = 1 << 20
MIN_WINDOW_S = 1.0  # CPU counters advance by hundredths of a second: a shorter window shows noise
MAX_WINDOW_S = 300.0  # a look from this long ago is no longer "now"


class Reading(NamedTuple):
    """The counters of one moment, from which rates are made; None where they cannot be read."""

    at_s: float
    cpu: CpuTimes | None
    container_cpu_s: float | None
    traffic: dict[str, Traffic] | None


class Sampler:
    """Reads the machine and keeps the previous counters itself.

    psutil keeps those of `cpu_percent()` by thread, which under gevent means by greenlet, and would show
    every caller an interval of its own. Sole writer of both previous readings. The constructor's arguments
    are seams: counters, clock (monotonic seconds), folders.
    """

    def __init__(
        self,
        *,
        disk: DiskProbe | None = None,
        container: Container | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_times: Callable[[], CpuTimes] | None = None,
        traffic: Callable[[], dict[str, Traffic]] | None = None,
        interfaces: str = "/sys/class/net",
        uptime: str = "/proc/uptime",
        loadavg: str = "/proc/loadavg",
    ) -> None:
        self._disk = disk or DiskProbe()
        self._container = container or Container()
        self._clock = clock
        self._cpu_times = cpu_times or read_cpu_times
        self._traffic = traffic or read_traffic
        self._interfaces = interfaces
        self._uptime = uptime
        self._loadavg = loadavg
        self._previous: Reading | None = None
        self._looked: Reading | None = None

    def sample(self) -> HostSample:
        """Return the machine's state, rates being those since the previous call. Blocks as `DiskProbe.read`.

        The first call has no rates. Never raises for what cannot be read: it is absent then.
        """
        limits = self._container.limits()
        reading = self._read(limits)
        found = self._describe(limits, self._previous, reading)
        self._previous = reading
        return found

    def look(self) -> HostSample:
        """Return the machine's state for somebody who wants to see it now; leaves `sample`'s interval alone.

        Rates are those since the previous look or sample that is at least a second old. Blocks like `sample`.
        """
        limits = self._container.limits()
        reading = self._read(limits)
        earlier = self._previous
        for candidate in (self._looked, self._previous):
            if candidate and MIN_WINDOW_S <= reading.at_s - candidate.at_s <= MAX_WINDOW_S:
                earlier = candidate
                break
        found = self._describe(limits, earlier, reading)
        if self._looked is None or reading.at_s - self._looked.at_s >= MIN_WINDOW_S:
            self._looked = reading
        return found

    def _read(self, limits: Limits | None) -> Reading:
        cpu: CpuTimes | None = None
        container_cpu_s: float | None = None
        traffic: dict[str, Traffic] | None = None
        at_s = self._clock()
        try:
            if limits is None:
                cpu = self._cpu_times()
            else:
                container_cpu_s = self._container.usage().cpu_s
        except (OSError, ValueError) as error:
            log.debug("cannot read the CPU counters: %s", error)
        try:
            wanted = physical_interfaces(self._interfaces)
            traffic = {name: count for name, count in self._traffic().items() if name in wanted}
        except (OSError, ValueError) as error:
            log.debug("cannot read the network counters: %s", error)
        return Reading(at_s, cpu, container_cpu_s, traffic)

    def _describe(self, limits: Limits | None, earlier: Reading | None, later: Reading) -> HostSample:
        return HostSample(
            uptimeSeconds=self._number(self._uptime),
            cpu=self._host_cpu(earlier, later) if limits is None else _container_cpu(limits, earlier, later),
            memory=self._memory(limits),
            disk=self._disk.read(),
            network=_network(earlier, later),
            scope="host" if limits is None else "container",
        )

    def _host_cpu(self, earlier: Reading | None, later: Reading) -> Cpu:
        shares = None
        if earlier and earlier.cpu and later.cpu:
            shares = cpu_shares(earlier.cpu, later.cpu)
        return Cpu(
            percent=round(shares[0], 2) if shares else None,
            stealPercent=round(shares[1], 2) if shares else None,
            count=psutil.cpu_count(),
            load1=self._number(self._loadavg),
        )

    def _memory(self, limits: Limits | None) -> Memory | None:
        try:
            host = psutil.virtual_memory()
        except (OSError, ValueError, KeyError) as error:
            log.debug("cannot read the memory figures: %s", error)
            return None
        total, used = host.total, host.total - host.available
        if limits is not None:
            contained = self._container.usage().memory_bytes
            if contained is None:
                return None
            total, used = min(limits.memory_bytes or total, total), contained
        return Memory(usedMb=round(used / MIB, 1), totalMb=round(total / MIB, 1), percent=round(100 * used / total, 2))

    def _number(self, path: str) -> float | None:
        """Return the first number in a file of one line."""
        try:
            with open(path, encoding="ascii") as file:
                return float(file.read().split()[0])
        except (OSError, ValueError, IndexError):
            return None


def read_cpu_times() -> CpuTimes:
    """Return the machine's CPU seconds; guest time is inside `user` already, waiting for a disk is idle."""
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + times.irq + times.softirq
    return CpuTimes(busy=busy, idle=times.idle + times.iowait, steal=times.steal)


def read_traffic() -> dict[str, Traffic]:
    """Return every interface's byte counters as the kernel has them, without psutil's wrap-around memory."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    return {name: Traffic(count.bytes_recv, count.bytes_sent) for name, count in counters.items()}


def _container_cpu(limits: Limits, earlier: Reading | None, later: Reading) -> Cpu:
    count = limits.cpus or psutil.cpu_count()
    percent = None
    if earlier and count and earlier.container_cpu_s is not None and later.container_cpu_s is not None:
        elapsed_s = later.at_s - earlier.at_s
        percent = usage_share(earlier.container_cpu_s, later.container_cpu_s, elapsed_s, count)
    # Stolen time and load average are the host's: inside a container nobody can tell its part of them.
    return Cpu(percent=None if percent is None else round(percent, 2), count=count)


def _network(earlier: Reading | None, later: Reading) -> Network | None:
    if earlier is None or earlier.traffic is None or later.traffic is None:
        return None
    rates = traffic_rates(earlier.traffic, later.traffic, later.at_s - earlier.at_s)
    if rates is None:
        return None
    return Network(rxBytesPerSecond=round(rates[0], 1), txBytesPerSecond=round(rates[1], 1))
