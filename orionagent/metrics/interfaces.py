"""Owns the choice of network interfaces whose traffic is the machine's: physical ones, each byte once.

Knows nothing of counters; it reads names and links below /sys/class/net only.
"""

import os

# Kinds the kernel names in DEVTYPE; none of them leads out of the machine by itself.
_STACKED_KINDS = frozenset(("bond", "bridge", "vlan", "vxlan", "wireguard", "gre", "team"))
_ARPHRD_ETHER = "1"


def physical_interfaces(folder: str = "/sys/class/net") -> frozenset[str]:
    """Return the names of the interfaces to add up; empty when /sys does not tell.

    Physical is what has a device behind it. Where there is none (a container's network namespace) it is what
    has its other end outside of this namespace. Does not block: sysfs reads of names and links.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return frozenset()
    physical = {name for name in names if _exists(folder, name, "device")}
    if not physical:
        return frozenset(name for name in names if _leads_outside(folder, name))
    # Two faces of one port (a cloud's accelerated function below its synthetic device, net_failover) both
    # have a device, and the upper one counts the lower one's traffic. The ports of a bond or bridge stay:
    # those have no device of their own.
    return frozenset(name for name in physical if _master(folder, name) not in physical)


def _leads_outside(folder: str, name: str) -> bool:
    if name == "lo" or _master(folder, name) is not None or _exists(folder, name, "bridge"):
        return False
    if _kind(folder, name) in _STACKED_KINDS:
        return False
    if name.startswith("venet"):  # OpenVZ: point to point, its own peer index
        return True
    ethernet = _read(folder, name, "type") == _ARPHRD_ETHER
    return ethernet and _read(folder, name, "iflink") != _read(folder, name, "ifindex")


def _kind(folder: str, name: str) -> str | None:
    for line in _read(folder, name, "uevent").splitlines():
        if line.startswith("DEVTYPE="):
            return line.removeprefix("DEVTYPE=")
    return None


def _master(folder: str, name: str) -> str | None:
    try:
        return os.path.basename(os.readlink(os.path.join(folder, name, "master")))
    except OSError:
        return None


def _exists(folder: str, name: str, attribute: str) -> bool:
    return os.path.exists(os.path.join(folder, name, attribute))


def _read(folder: str, name: str, attribute: str) -> str:
    try:
        with open(os.path.join(folder, name, attribute), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
