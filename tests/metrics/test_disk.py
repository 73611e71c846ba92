"""Sizes of filesystems, also of those that do not answer."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent.threadpool import ThreadPool

from orionagent.metrics.disk import GIB, MAX_STUCK, DiskProbe, summarise
from orionagent.metrics.mounts import Filesystem

BLOCK = 4096


def size(total_gb: float, free_gb: float, usable_gb: float | None = None, files: int = 0) -> os.statvfs_result:
    blocks = [int(gb * GIB / BLOCK) for gb in (total_gb, free_gb, free_gb if usable_gb is None else usable_gb)]
    return os.statvfs_result((BLOCK, BLOCK, *blocks, files, files, files, 0, 255))


def filesystem(path: str, fstype: str = "ext4", pool: str | None = None) -> Filesystem:
    return Filesystem(path, "/dev/x", fstype, pool or path)


def test_used_and_percent_are_those_of_df() -> None:
    disk = summarise({filesystem("/"): size(100, 50, usable_gb=40)})
    assert disk is not None
    assert (disk.usedGb, disk.totalGb) == (50.0, 100.0)
    assert disk.percent == pytest.approx(100 * 50 / 90, abs=0.01)


def test_distinct_filesystems_add_up_and_are_listed() -> None:
    disk = summarise({filesystem("/"): size(10, 5), filesystem("/srv"): size(30, 10)})
    assert disk is not None
    assert (disk.usedGb, disk.totalGb) == (25.0, 40.0)
    assert [mount.path for mount in disk.mounts] == ["/", "/srv"]


def test_the_free_space_of_a_pool_counts_once() -> None:
    disk = summarise({filesystem("/", pool="p"): size(11, 10), filesystem("/home", pool="p"): size(14, 10)})
    assert disk is not None
    assert (disk.usedGb, disk.totalGb) == (5.0, 15.0)


def test_a_host_file_bound_into_a_container_is_its_overlay_seen_twice() -> None:
    disk = summarise(
        {filesystem("/", "overlay"): size(100, 50, files=7), filesystem("/etc/hosts"): size(100, 49, files=7)}
    )
    assert disk is not None
    assert [mount.path for mount in disk.mounts] == ["/"]


def test_nothing_readable_is_absent_not_zero() -> None:
    assert summarise({}) is None
    assert summarise({filesystem("/"): size(0, 0)}) is None


def test_this_machine_has_a_disk() -> None:
    disk = DiskProbe().read()
    assert disk is not None
    assert disk.totalGb is not None
    assert disk.totalGb > 0


def test_an_unreadable_mount_table_is_absent(root: Path) -> None:
    assert DiskProbe(mountinfo=str(root / "none")).read() is None


def mount_table(root: Path, *folders: str) -> str:
    """Write a mount table with an ext4 filesystem on each folder and return its path."""
    lines = [f"{n} 1 8:{n} / {folder} rw - ext4 /dev/x rw\n" for n, folder in enumerate(folders)]
    (root / "mountinfo").write_text("".join(lines))
    return str(root / "mountinfo")


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    own = ThreadPool(MAX_STUCK + 2)
    yield own
    own.kill()


Hang = Callable[[str], os.statvfs_result]


@pytest.fixture
def hanging(root: Path) -> Iterator[tuple[Hang, Callable[[], None]]]:
    """Yield a statvfs that really blocks its thread on paths with "hung" in them, and its release."""
    reading, writing = os.pipe()

    def statvfs(path: str) -> os.statvfs_result:
        if "hung" in path:
            os.read(reading, 1)  # blocks like a dead server; returns at the writer's close
        return size(10, 5)

    released: list[bool] = []

    def release() -> None:
        if not released:
            os.close(writing)
            released.append(True)

    yield statvfs, release
    release()
    gevent.sleep(0)
    os.close(reading)


def test_a_filesystem_that_hangs_is_left_out_remembered_and_taken_back(
    root: Path, pool: ThreadPool, hanging: tuple[Hang, Callable[[], None]]
) -> None:
    statvfs, release = hanging
    probe = DiskProbe(mountinfo=mount_table(root, "/", "/hung"), statvfs=statvfs, deadline_s=0.2, pool=pool)
    for _ in range(3):
        disk = probe.read()
        assert disk is not None
        assert [mount.path for mount in disk.mounts] == ["/"]
        assert probe.stuck == ("/hung",)
    assert pool.size <= 2  # asked once, not at every heartbeat
    release()
    with gevent.Timeout(10):
        while probe.stuck:
            gevent.sleep(0.01)
    disk = probe.read()
    assert disk is not None
    assert [mount.path for mount in disk.mounts] == ["/", "/hung"]


def test_others_go_on_while_a_filesystem_hangs(
    root: Path, pool: ThreadPool, hanging: tuple[Hang, Callable[[], None]]
) -> None:
    statvfs, release = hanging
    probe = DiskProbe(mountinfo=mount_table(root, "/hung"), statvfs=statvfs, deadline_s=30, pool=pool)
    reading = gevent.spawn(probe.read)
    turns = 0
    started_s = time.monotonic()
    while turns < 20 and time.monotonic() - started_s < 10:
        gevent.sleep(0.001)
        turns += 1
    assert turns == 20
    assert not reading.ready()
    release()
    assert reading.get(timeout=10) is not None


def test_a_machine_full_of_dead_filesystems_does_not_use_up_the_threads(
    root: Path, pool: ThreadPool, hanging: tuple[Hang, Callable[[], None]]
) -> None:
    statvfs, release = hanging
    table = mount_table(root, *[f"/hung{n}" for n in range(MAX_STUCK + 5)])
    probe = DiskProbe(mountinfo=table, statvfs=statvfs, deadline_s=0.1, pool=pool)
    assert probe.read() is None
    assert len(probe.stuck) == MAX_STUCK
    mount_table(root, "/", "/new")
    assert probe.read() is None
    release()
    with gevent.Timeout(10):
        while probe.stuck:
            gevent.sleep(0.01)
    assert probe.read() is not None


def test_many_who_read_at_once_open_no_more_questions_than_one_and_wait_no_longer(
    root: Path, pool: ThreadPool, hanging: tuple[Hang, Callable[[], None]]
) -> None:
    statvfs, _ = hanging
    asked: list[str] = []

    def note(path: str) -> os.statvfs_result:
        asked.append(path)
        return statvfs(path)

    probe = DiskProbe(mountinfo=mount_table(root, "/", "/hung"), statvfs=note, deadline_s=0.2, pool=pool)
    readers = [gevent.spawn(probe.read) for _ in range(12)]
    gevent.joinall(readers, timeout=10)
    for reader in readers:
        disk = reader.get(block=False)
        assert disk is not None
        assert [mount.path for mount in disk.mounts] == ["/"]
    assert sorted(asked) == ["/", "/hung"]
    assert pool.size <= MAX_STUCK


def test_a_reader_that_is_killed_leaves_the_turn_to_the_next(
    root: Path, pool: ThreadPool, hanging: tuple[Hang, Callable[[], None]]
) -> None:
    statvfs, release = hanging
    probe = DiskProbe(mountinfo=mount_table(root, "/", "/hung"), statvfs=statvfs, deadline_s=30, pool=pool)
    first, second = gevent.spawn(probe.read), gevent.spawn(probe.read)
    gevent.sleep(0)
    first.kill()
    release()
    assert second.get(timeout=10) is not None


def test_a_filesystem_that_refuses_is_left_out(root: Path) -> None:
    def statvfs(path: str) -> os.statvfs_result:
        if path == "/srv":
            raise PermissionError(13, "no")
        return size(10, 5)

    disk = DiskProbe(mountinfo=mount_table(root, "/", "/srv"), statvfs=statvfs).read()
    assert disk is not None
    assert [mount.path for mount in disk.mounts] == ["/"]
