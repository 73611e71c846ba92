"""Owns finding a script's processes in /proc: descendants, its session, and those that fled both.

Knows nothing of why they are looked for. Every function reads /proc once and never blocks.
"""

import os
from collections.abc import Collection, Iterable

import msgspec

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NAME_VARIABLE = "ORION_SCRIPT"
AGENT_VARIABLE = "ORION_SOCKET"


class Stat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What /proc/PID/stat tells: `start_ticks` since boot, `cpu_ticks` used, `rss_bytes` resident."""

    pid: int
    ppid: int
    state: str
    session: int
    cpu_ticks: int
    start_ticks: int
    rss_bytes: int


def read_stat(pid: int) -> Stat | None:
    """Return a process's figures, None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            data = file.read(1024)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command in parentheses may itself hold parentheses and blanks.
    fields = data[data.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        state=fields[0].decode("ascii"),
        ppid=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
        rss_bytes=int(fields[21]) * PAGE_BYTES,
    )


def is_alive(stat: Stat | None) -> bool:
    """Tell a running process from none and from a zombie."""
    return stat is not None and stat.state not in "ZX"


def read_boot_id() -> str:
    """Return the kernel's name of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def read_all() -> dict[int, Stat]:
    """Return the figures of every process of the machine, zombies left out."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = read_stat(int(name))
            if stat is not None and is_alive(stat):
                found[stat.pid] = stat
    return found


def read_children(pid: int) -> list[int]:
    """Return the pids of a process's children as the kernel lists them, zombies included."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                children.extend(int(word) for word in file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return children


def read_environment(pid: int) -> dict[str, str]:
    """Return the environment a process was executed with; {} when it is gone or not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            data = file.readall() or b""
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in data.split(b"\0") if b"=" in item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}


def read_command(pid: int) -> str:
    """Return a process's command line for people."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            data = file.read(4096)
    except OSError:
        return ""
    return os.fsdecode(data.rstrip(b"\0").replace(b"\0", b" "))


def count_descriptors(pid: int) -> int | None:
    """Return how many descriptors a process has open, None when that is not ours to see."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def belongs_by_name(pid: int, name: str, agent: str) -> bool:
    """Tell whether a process was started (at whatever remove) as part of this agent's script `name`."""
    environment = read_environment(pid)
    return environment.get(NAME_VARIABLE) == name and environment.get(AGENT_VARIABLE) == agent


def find_members(
    processes: dict[int, Stat],
    *,
    main_pid: int | None,
    name: str,
    agent: str,
    agent_pid: int,
    grouped: Collection[int] = (),
) -> list[Stat]:
    """Return a script's living processes among `processes`, parents before children.

    Members are the main process, whatever is in its session, the pids `grouped` in its cgroup, orphans whose
    environment names the script, and all descendants of those.
    """
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    roots = [stat.pid for stat in processes.values() if main_pid is not None and main_pid in (stat.pid, stat.session)]
    roots += [pid for pid in grouped if pid in processes]
    seen = set(roots)
    # An orphan's parent is init, a subreaper above us or we ourselves: not a process of ours otherwise known.
    strangers = (s for s in processes.values() if s.ppid in (1, agent_pid) and s.pid not in seen)
    roots += [stat.pid for stat in strangers if belongs_by_name(stat.pid, name, agent)]
    order: list[int] = []
    seen = set()
    stack = roots[::-1]
    while stack:
        pid = stack.pop()
        if pid not in seen:
            seen.add(pid)
            order.append(pid)
            stack.extend(children.get(pid, ()))
    return [processes[pid] for pid in order]


def total_rss_bytes(members: Iterable[Stat]) -> int:
    """Return the resident memory of some processes; pages they share count once for each."""
    return sum(stat.rss_bytes for stat in members)
