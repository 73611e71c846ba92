"""Owns finding a script's processes in /proc: descendants, its session, and those that fled both.

Knows nothing of why they are looked for. Nothing here blocks.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import msgspec

Key = TypeVar("Key", int, str)

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NAME_VARIABLE = "ORION_SCRIPT"
AGENT_VARIABLE = "ORION_SOCKET"


class Stat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What /proc/PID/stat tells: `start_ticks` since boot, `cpu_ticks` used, `rss_bytes` resident.

    What children used that have ended counts as their parent's once it has waited for them.
    """

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
        cpu_ticks=sum(map(int, fields[11:15])),
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


class Census:
    """One look at all processes of the machine, zombies left out; what several scripts ask of it is worked out once.

    `agent` is the socket by which an agent marks its scripts' environments.
    """

    def __init__(self, processes: Mapping[int, Stat], agent: str) -> None:
        self.processes = processes
        self._agent = agent

    @classmethod
    def take(cls, agent: str) -> "Census":
        """Look at all of /proc now.

        Raises:
            OSError: there is no descriptor left to look with.
        """
        stats = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return cls({stat.pid: stat for stat in stats if stat is not None and is_alive(stat)}, agent)

    def with_also(self, pids: Iterable[int]) -> "Census":
        """Return a census that has these processes as well, as far as they live."""
        fresh = [stat for pid in pids if pid not in self.processes and (stat := read_stat(pid)) is not None]
        if not fresh:
            return self
        return Census({**self.processes, **{stat.pid: stat for stat in fresh if is_alive(stat)}}, self._agent)

    @cached_property
    def sessions(self) -> Mapping[int, Sequence[int]]:
        """The members of each session, by its number."""
        return _group((stat.session, stat.pid) for stat in self.processes.values())

    @cached_property
    def children(self) -> Mapping[int, Sequence[int]]:
        """The children of each process."""
        return _group((stat.ppid, stat.pid) for stat in self.processes.values())

    @cached_property
    def orphans(self) -> Mapping[str, Sequence[int]]:
        """The orphans of each script, by the name in their environment.

        An orphan's parent is init, a subreaper above us or we ourselves: not a process of ours otherwise known.
        """
        found = []
        for pid in {pid for parent in (1, os.getpid()) for pid in self.children.get(parent, ())}:
            environment = read_environment(pid)
            if environment.get(AGENT_VARIABLE) == self._agent:
                found.append((environment.get(NAME_VARIABLE, ""), pid))
        return _group(found)

    def members(self, script: str, *, main_pid: int | None, grouped: Iterable[int] = ()) -> list[Stat]:
        """Return a script's living processes, parents before children.

        Members are the main process, whatever is in its session, the pids `grouped` in its cgroup, orphans whose
        environment names the script, and all descendants of those.
        """
        roots = [*grouped, *self.orphans.get(script, ())]
        if main_pid is not None:
            roots = [main_pid, *self.sessions.get(main_pid, ()), *roots]
        found: dict[int, Stat] = {}
        stack = roots[::-1]
        while stack:
            pid = stack.pop()
            stat = self.processes.get(pid)
            if stat is not None and pid not in found:
                found[pid] = stat
                stack.extend(self.children.get(pid, ()))
        return list(found.values())


def _group(pairs: Iterable[tuple[Key, int]]) -> dict[Key, list[int]]:
    groups: dict[Key, list[int]] = {}
    for key, pid in pairs:
        groups.setdefault(key, []).append(pid)
    return groups


def total_rss_bytes(members: Iterable[Stat]) -> int:
    """Return the resident memory of some processes; pages they share count once for each."""
    return sum(stat.rss_bytes for stat in members)
