"""Owns the agent's delegated cgroup (v2): one leaf per script, who is in it, their end, and word of memory kills.

Knows nothing of why a script runs or ends. Controllers are never enabled: with them, leaves that are still populated
would keep a service manager from starting the agent again.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

LEAF_PREFIX = "script-"
# What a service manager marks a subtree with that it will not touch: `trusted.` is for root's eyes only.
DELEGATION_MARKS = ("trusted.delegate", "user.delegate")
RECENT_S = 5.0


class Leaf:
    """One script's cgroup, by name: the next agent finds it again. Without delegation, one that is always empty.

    Membership passes from parent to child whatever the child does to its session, parent or environment.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"Leaf({self._folder!r})"

    def open_entry(self) -> int | None:
        """Make the leaf if need be; return a descriptor that moves its writer in by "0" (the caller closes it).

        None without delegation and where the kernel refuses: the script runs all the same, found by /proc only.
        """
        if self._folder is None:
            return None
        try:
            os.makedirs(self._folder, exist_ok=True)
            return os.open(os.path.join(self._folder, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            log.warning("cannot make %s: %s; its processes are found by /proc only", self._folder, error.strerror)
            return None

    def pids(self) -> list[int]:
        """Return the members, those of cgroups that an application made below its own included."""
        if self._folder is None:
            return []
        return [int(pid) for folder in _folders_of(self._folder) for pid in _read(folder, "cgroup.procs").split()]

    def is_populated(self) -> bool:
        """Tell whether anything lives in it; one read."""
        return self._folder is not None and "populated 1" in _read(self._folder, "cgroup.events")

    def kill(self) -> None:
        """Send SIGKILL to all members at once, also to those that are being forked meanwhile (Linux 5.14 and newer)."""
        if self._folder is None:
            return
        try:
            fd = os.open(os.path.join(self._folder, "cgroup.kill"), os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return  # an older kernel, or no leaf: whoever calls this signals each process as well
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)

    def remove(self) -> bool:
        """Remove the leaf if nothing lives in it; return whether it is gone."""
        if self._folder is None:
            return True
        for folder in reversed(_folders_of(self._folder)):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


class Subtree:
    """All leaves. `folder` is the agent's own cgroup, None where that is not delegated to it."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Subtree({self.folder!r})"

    def leaf(self, script: str) -> Leaf:
        """Return the script's leaf, whether it has been made or not."""
        return Leaf(None if self.folder is None else os.path.join(self.folder, LEAF_PREFIX + script))

    def sweep(self, known: Iterable[str]) -> None:
        """Remove leaves that no script of `known` has; what still lives in one is logged and left alone."""
        if self.folder is None:
            return
        keep = {LEAF_PREFIX + name for name in known}
        for name in os.listdir(self.folder):
            if name.startswith(LEAF_PREFIX) and name not in keep:
                leaf = Leaf(os.path.join(self.folder, name))
                if not leaf.remove():
                    log.warning("no script has the cgroup %s; in it live the processes %s", name, leaf.pids())


class MemoryKills:
    """Whether the kernel's out-of-memory killer struck just now, by the `memory.events` of a cgroup.

    The count covers everything below the cgroup, so a rise is matched with an end by time. Look now and then
    (`look`), so that an old rise is not taken for a new one. `now` returns seconds of a monotonic clock.
    """

    def __init__(self, folder: str | None, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        self._count = self._read()
        self._rose_at = float("-inf")

    def look(self) -> None:
        """Take note of the count; one small read."""
        count = self._read()
        if count is not None and self._count is not None and count > self._count:
            self._rose_at = self._now()
        self._count = count

    def struck_recently(self) -> bool:
        """Tell whether a process was killed for memory within the last five seconds; False where no file tells."""
        self.look()
        return self._now() - self._rose_at <= RECENT_S

    def _read(self) -> int | None:
        if self._folder is None:
            return None
        found = re.search(r"^oom_kill (\d+)$", _read(self._folder, "memory.events"), re.MULTILINE)
        return int(found[1]) if found else None


def find_own_folder() -> str | None:
    """Return the folder of this process's cgroup, None where no cgroup v2 that shows it is mounted."""
    path = next((line[3:].rstrip("\n") for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None)
    if path is None:
        return None
    for line in _lines("/proc/self/mountinfo"):
        # https://docs.kernel.org/filesystems/proc.html, 3.5: root and mount point are fields 4 and 5.
        left, _, right = line.partition(" - ")
        if not right.startswith("cgroup2 "):
            continue
        root, mount = (_unescape(field) for field in left.split(" ")[3:5])
        if path != root and not path.startswith(root.rstrip("/") + "/"):
            continue
        folder = mount + path[len(root.rstrip("/")) :].rstrip("/")
        # Another mount may lie on top of this one, or the view be another namespace's: only the kernel knows.
        if str(os.getpid()) in _read(folder, "cgroup.procs").split():
            return folder
    return None


def find_subtree() -> Subtree:
    """Return the subtree that the agent's own cgroup is, an empty one unless it is delegated and writable."""
    folder = find_own_folder()
    if folder is None or not _is_delegated(folder) or _read(folder, "cgroup.type").strip() != "domain":
        return Subtree(None)
    writable = os.access(folder, os.W_OK) and os.access(os.path.join(folder, "cgroup.procs"), os.W_OK)
    return Subtree(folder if writable else None)


def _is_delegated(folder: str) -> bool:
    for mark in DELEGATION_MARKS:
        try:
            if os.getxattr(folder, mark) == b"1":
                return True
        except OSError:
            continue  # not set, or not ours to see
    return False


def _folders_of(folder: str) -> list[str]:
    return [found for found, _, _ in os.walk(folder)]


def _read(folder: str, name: str) -> str:
    """Return a file of a cgroup; "" when file or cgroup is not there (any more)."""
    try:
        with open(os.path.join(folder, name), encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readlines()
    except OSError:
        return []


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
