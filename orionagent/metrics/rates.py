"""Owns the arithmetic between two readings: CPU shares and bytes per second.

Pure: no clock and no system; whatever cannot be told is None, never zero.
"""

from collections.abc import Mapping
from typing import NamedTuple


class CpuTimes(NamedTuple):
    """Seconds since boot over all CPUs, in three parts that exclude each other."""

    busy: float
    idle: float
    steal: float


class Traffic(NamedTuple):
    """Bytes that one interface has received and sent since it came up."""

    received: int
    sent: int


def cpu_shares(earlier: CpuTimes, later: CpuTimes) -> tuple[float, float] | None:
    """Return (busy, stolen) in percent of all CPUs between two readings, None when they do not tell.

    A part that went backwards (a CPU taken offline, a virtual machine moved) makes both unknown.
    """
    busy, idle, steal = (after - before for before, after in zip(earlier, later, strict=True))
    total = busy + idle + steal
    if min(busy, idle, steal) < 0 or total <= 0:
        return None
    return 100 * busy / total, 100 * steal / total


def usage_share(earlier_s: float, later_s: float, elapsed_s: float, cpus: float) -> float | None:
    """Return the share in percent of `cpus` that `later_s - earlier_s` CPU seconds are.

    None for a counter that went backwards. At most 100: the kernel grants a burst over the limit.
    """
    used_s = later_s - earlier_s
    if used_s < 0 or elapsed_s <= 0 or cpus <= 0:
        return None
    return min(100 * used_s / (elapsed_s * cpus), 100.0)


def traffic_rates(
    earlier: Mapping[str, Traffic], later: Mapping[str, Traffic], elapsed_s: float
) -> tuple[float, float] | None:
    """Return (received, sent) in bytes per second over the interfaces that both readings have.

    An interface that is new begins to count with the next reading. A counter that went backwards (the
    interface was reset or made anew) makes the sum unknown.
    """
    received = sent = 0
    common = earlier.keys() & later.keys()
    if not common or elapsed_s <= 0:
        return None
    for name in common:
        received_more = later[name].received - earlier[name].received
        sent_more = later[name].sent - earlier[name].sent
        if received_more < 0 or sent_more < 0:
            return None
        received += received_more
        sent += sent_more
    return received / elapsed_s, sent / elapsed_s
