"""Owns the reading of filesystem sizes: one that hangs costs its own figure and nothing else.

Knows nothing of heartbeats; which filesystems count is `mounts`' business.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from orionagent.metrics.mounts import Filesystem, real_filesystems
from orionagent.wire import Disk, Mount

log = logging.getLogger(__name__)

DEADLINE_S = 2.0
MAX_STUCK = 4  # of the hub's ten threads, which the buffer's fsync needs too
GIB = 1 << 30


class DiskProbe:
    """Asks every real filesystem for its size in the thread pool, and waits for all of them together.

    Sole writer of its record of unanswered questions: a filesystem is asked again only when it has answered
    the last time, and at most `MAX_STUCK` questions are open at once, however many greenlets read: one of them asks,
    the others share what it finds. `statvfs` and `mountinfo` are seams.
    """

    def __init__(
        self,
        *,
        mountinfo: str = "/proc/self/mountinfo",
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
        deadline_s: float = DEADLINE_S,
        pool: ThreadPool | None = None,
    ) -> None:
        self._mountinfo = mountinfo
        self._statvfs = statvfs
        self._deadline_s = deadline_s
        self._pool = pool
        self._turn = BoundedSemaphore(1)
        self._found: Mapping[Filesystem, os.statvfs_result] = {}
        self._stuck: dict[str, AsyncResult[os.statvfs_result]] = {}
        self._table = ""
        self._filesystems: tuple[Filesystem, ...] = ()

    @property
    def stuck(self) -> tuple[str, ...]:
        """The paths that have not answered yet."""
        return tuple(sorted(path for path, answer in self._stuck.items() if not answer.ready()))

    def read(self) -> Disk | None:
        """Return the disks' figures; None when none can be read. Blocks at most `deadline_s`.

        A filesystem that does not answer, or answers with an error, is left out. While another greenlet reads,
        its figures are waited for and returned.
        """
        try:
            with open(self._mountinfo, encoding="utf-8", errors="surrogateescape") as file:
                table = file.read()
        except OSError as error:
            log.debug("cannot read the mount table: %s", error)
            return None
        if table != self._table:  # parsing anew at every heartbeat would cost most of it
            self._table, self._filesystems = table, real_filesystems(table)
        return summarise(self._share_sizes())

    def _share_sizes(self) -> Mapping[Filesystem, os.statvfs_result]:
        before = self._found
        with self._turn:
            if self._found is before:  # nobody's look has ended since we came: it is ours to look
                self._found = self._sizes()
            return self._found

    def _sizes(self) -> dict[Filesystem, os.statvfs_result]:
        self._stuck = {path: answer for path, answer in self._stuck.items() if not answer.ready()}
        waiting = [found for found in self._filesystems if found.path not in self._stuck]
        sizes: dict[Filesystem, os.statvfs_result] = {}
        deadline_s = time.monotonic() + self._deadline_s
        while waiting and len(self._stuck) < MAX_STUCK and time.monotonic() < deadline_s:
            room = MAX_STUCK - len(self._stuck)
            sizes |= self._ask(waiting[:room], deadline_s)
            del waiting[:room]
        return sizes

    def _ask(self, filesystems: list[Filesystem], deadline_s: float) -> dict[Filesystem, os.statvfs_result]:
        pool = self._pool or gevent.get_hub().threadpool
        asked = {filesystem: pool.spawn(self._statvfs, filesystem.path) for filesystem in filesystems}
        gevent.wait(list(asked.values()), timeout=max(deadline_s - time.monotonic(), 0))
        sizes = {}
        for filesystem, answer in asked.items():
            if not answer.ready():
                self._stuck[filesystem.path] = answer
                log.warning("%s does not answer; its size is left out until it does", filesystem.path)
            elif answer.successful() and answer.value is not None:
                sizes[filesystem] = answer.value
        return sizes


def summarise(sizes: Mapping[Filesystem, os.statvfs_result]) -> Disk | None:
    """Add up what statvfs said; None when there is nothing to add.

    `percent` is that of df(1): what is used of what people other than root can use. Filesystems of one pool
    share its free space, which is counted once.
    """
    mounts: list[Mount] = []
    used: dict[str, int] = {}
    free: dict[str, int] = {}
    usable: dict[str, int] = {}
    for filesystem, size in _without_copies(sizes):
        total_bytes = size.f_blocks * size.f_frsize
        free_bytes = size.f_bfree * size.f_frsize
        used_bytes = total_bytes - free_bytes
        usable_bytes = size.f_bavail * size.f_frsize
        pool = filesystem.pool
        used[pool] = used.get(pool, 0) + used_bytes
        free[pool] = max(free.get(pool, 0), free_bytes)
        usable[pool] = max(usable.get(pool, 0), usable_bytes)
        mounts.append(
            Mount(
                path=_readable(filesystem.path),
                device=_readable(filesystem.device),
                fstype=filesystem.fstype,
                usedGb=round(used_bytes / GIB, 3),
                totalGb=round(total_bytes / GIB, 3),
                percent=_percent(used_bytes, usable_bytes),
            )
        )
    if not mounts:
        return None
    used_all = sum(used.values())
    return Disk(
        usedGb=round(used_all / GIB, 3),
        totalGb=round((used_all + sum(free.values())) / GIB, 3),
        percent=_percent(used_all, sum(usable.values())),
        mounts=tuple(mounts),
    )


def _without_copies(
    sizes: Mapping[Filesystem, os.statvfs_result],
) -> Iterable[tuple[Filesystem, os.statvfs_result]]:
    """Yield what to count: no empty ones, and none that an overlay root already shows.

    A container's overlay reports the figures of the host filesystem below it, and the runtime binds files of
    the same one (/etc/hosts, volumes) into the container.
    """
    root = next((size for found, size in sizes.items() if found.fstype == "overlay"), None)
    for filesystem, size in sizes.items():
        is_copy = (
            root is not None
            and filesystem.fstype != "overlay"
            and (size.f_blocks * size.f_frsize, size.f_files) == (root.f_blocks * root.f_frsize, root.f_files)
        )
        if size.f_blocks > 0 and not is_copy:
            yield filesystem, size


def _percent(used_bytes: int, usable_bytes: int) -> float:
    shown = used_bytes + usable_bytes
    return round(100 * used_bytes / shown, 2) if shown else 0.0


def _readable(text: str) -> str:
    # A path need not be UTF-8, JSON must.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
