"""A disk that is full, read-only, broken or gone never stops anybody, and what can be kept is kept."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from orionagent.logs.buffer import Buffer
from orionagent.logs.disk import Disk
from orionagent.paths import Paths
from tests.end_to_end.daemon import REPOSITORY
from tests.logs.journals import BOOT, drain, messages, numbered, open_buffer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives its rights up")


class BadDisk(Disk):
    """Fails writes (after `torn_bytes` of one) and syncs while `error` is set."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.torn_bytes = 0
        self.cuts = True

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
        if self.error is None:
            super().write(descriptor, pieces, offset)
            return
        if self.torn_bytes:
            super().write(descriptor, [b"".join(pieces)[: self.torn_bytes]], offset)
        raise OSError(self.error, os.strerror(self.error))

    def truncate(self, descriptor: int, size: int) -> None:
        if self.error is not None and not self.cuts:
            raise OSError(self.error, os.strerror(self.error))
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        super().sync(descriptor)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def open_on(path: str, disk: Disk, clock: Clock, *, max_entries: int = 1000) -> Buffer:
    buffer = Buffer(path, boot_id=BOOT, max_entries=max_entries, max_bytes=1 << 20, disk=disk, monotonic=clock)
    buffer.open()
    return buffer


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("torn_bytes", [0, 100])
@pytest.mark.parametrize("cuts", [True, False])
def test_entries_stay_in_memory_while_the_disk_refuses_and_are_written_when_it_takes_them(
    paths: Paths, error: int, torn_bytes: int, cuts: bool
) -> None:
    disk, clock = BadDisk(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    buffer.append(numbered(1, 3, offset=3))
    disk.error, disk.torn_bytes, disk.cuts = error, torn_bytes, cuts
    buffer.append(numbered(4, 6, offset=6))
    buffer.append(numbered(7, 9, offset=9))
    assert buffer.custody.refused is not None
    assert buffer.custody.refused.errno == error
    sent = list(drain(buffer, most=5, limit=3))
    assert [entry["message"] for entry in sent] == [f"line {n}" for n in range(1, 10)][: len(sent)]
    assert len({entry.instance for entry in sent}) == 2, "the journal does not know the later numbers"
    buffer.append(numbered(10, 12, offset=12))

    disk.error = None
    buffer.append(numbered(13, 13, offset=13))
    assert buffer.custody.refused is not None, "tried anew only every 5 s"
    clock.now += 5.1
    buffer.append(numbered(14, 14, offset=14))
    assert buffer.custody.ready()
    again = open_buffer(paths.buffer)
    assert again.offsets == {"api:stdout": 14}
    assert messages(again) == messages(buffer) == [f"line {n}" for n in range(10, 15)]
    buffer.close()
    again.close()


def test_memory_is_bounded_by_the_same_limits_while_the_disk_refuses(paths: Paths) -> None:
    disk, clock = BadDisk(), Clock()
    buffer = open_on(paths.buffer, disk, clock, max_entries=50)
    buffer.append(numbered(1, 30))
    disk.error = errno.ENOSPC
    for first in range(31, 331, 10):
        buffer.append(numbered(first, first + 9))
    assert buffer.entries == 50
    assert buffer.dropped.total == 280
    disk.error = None
    clock.now += 6
    assert buffer.custody.ready()
    again = open_buffer(paths.buffer)
    assert again.dropped.total == 280
    assert messages(again) == [f"line {n}" for n in range(281, 331)]
    buffer.close()
    again.close()


def test_a_killed_agent_whose_disk_refused_never_uses_a_number_twice(paths: Paths) -> None:
    disk, clock = BadDisk(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    buffer.append(numbered(1, 2))
    disk.error = errno.ENOSPC
    buffer.append(numbered(3, 4))
    before = {(entry.instance, entry["seq"]) for entry in drain(buffer)}
    again = open_buffer(paths.buffer)
    again.append(numbered(5, 6))
    after = [(entry.instance, entry["seq"], entry["message"]) for entry in drain(again)]
    repeated = [message for instance, seq, message in after if (instance, seq) in before]
    assert repeated == ["line 1", "line 2"], "resent because their acknowledgement could not be written"
    disk.error = None
    buffer.close()
    again.close()


def test_a_failed_sync_has_the_journal_written_anew(paths: Paths) -> None:
    disk, clock = BadDisk(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    buffer.append(numbered(1, 5))
    inode = os.stat(paths.buffer).st_ino
    disk.error = errno.EIO
    failed = []

    def recover_afterwards(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except OSError as error:
            failed.append(error)
            disk.error = None
            raise

    buffer.custody.sync(recover_afterwards)
    assert failed
    assert os.stat(paths.buffer).st_ino != inode
    assert messages(buffer) == [f"line {n}" for n in range(1, 6)]
    buffer.close()


def test_a_full_disk_is_freed_as_soon_as_nothing_waits(paths: Paths) -> None:
    class NoRoomForCopies(Disk):
        def open(self, path: str, *, fresh: bool = False, read_only: bool = False) -> int:
            if fresh:
                raise OSError(errno.ENOSPC, "no space left")
            return super().open(path, read_only=read_only)

    buffer = open_on(paths.buffer, NoRoomForCopies(), Clock())
    buffer.append(numbered(1, 500))
    list(drain(buffer))
    assert buffer.custody.compact()
    assert os.path.getsize(paths.buffer) < 1000
    buffer.append(numbered(501, 501))
    again = open_buffer(paths.buffer)
    assert messages(again) == ["line 501"]
    buffer.close()
    again.close()


class BusyDisk(BadDisk):
    """Has something happen while the first copy is synced, and counts what is copied afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[Callable[[], None]] = []
        self.copies: list[int] = []

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        while self.meanwhile:
            self.meanwhile.pop()()

    def copy(self, source: int, start: int, stop: int, target: int, offset: int) -> int:
        reached = super().copy(source, start, stop, target, offset)
        self.copies.append(reached - start)
        return reached


def test_what_is_appended_while_a_copy_is_synced_does_not_hold_the_owner_up(paths: Paths) -> None:
    disk = BusyDisk()
    buffer = open_on(paths.buffer, disk, Clock())
    buffer.append(numbered(1, 10))

    def append() -> None:
        for first in range(11, 511, 100):
            buffer.append(numbered(first, first + 99))

    disk.meanwhile.append(append)
    assert buffer.custody.compact()
    first, *_, last = disk.copies
    assert first > 10_000
    assert last == 0, "the owner's own part"
    again = open_buffer(paths.buffer)
    assert messages(again) == messages(buffer) == [f"line {n}" for n in range(1, 511)]
    buffer.close()
    again.close()


def test_a_disk_that_refuses_and_recovers_during_a_rewrite_leaves_the_old_journal_in_use(paths: Paths) -> None:
    disk, clock = BusyDisk(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    buffer.append(numbered(1, 10))

    def stumble() -> None:
        disk.error, disk.torn_bytes = errno.ENOSPC, 50
        buffer.append(numbered(11, 20))
        disk.error = None
        clock.now += 6
        buffer.append(numbered(21, 30))

    disk.meanwhile.append(stumble)
    inode = os.stat(paths.buffer).st_ino
    assert not buffer.custody.compact()
    assert os.stat(paths.buffer).st_ino == inode
    again = open_buffer(paths.buffer)
    assert messages(again) == messages(buffer) == [f"line {n}" for n in range(1, 31)]
    buffer.close()
    again.close()


class ReadOnly(Disk):
    """Opens nothing for writing while it is `on`."""

    def __init__(self) -> None:
        self.on = True

    def open(self, path: str, *, fresh: bool = False, read_only: bool = False) -> int:
        if self.on and not read_only:
            raise OSError(errno.EROFS, "read-only file system")
        return super().open(path, fresh=fresh, read_only=read_only)


def test_a_journal_on_a_disk_that_became_read_only_is_still_delivered(paths: Paths) -> None:
    first = open_buffer(paths.buffer)
    first.append(numbered(1, 3))
    first.close()

    disk, clock = ReadOnly(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    buffer.append(numbered(4, 5))
    assert buffer.custody.refused is not None
    assert [entry["message"] for entry in drain(buffer, most=2, limit=1)] == ["line 1", "line 2"]
    disk.on = False
    clock.now += 6
    buffer.append(numbered(6, 6))
    again = open_buffer(paths.buffer)
    assert messages(again) == messages(buffer) == ["line 3", "line 4", "line 5", "line 6"]
    buffer.close()
    again.close()


def test_a_stump_is_cut_off_as_soon_as_a_read_only_disk_takes_data(paths: Paths) -> None:
    first = open_buffer(paths.buffer)
    first.append(numbered(1, 3))
    first.close()
    with open(paths.buffer, "ab") as file:
        file.write(b'{"seq":4,"timestamp":"2026')
    disk, clock = ReadOnly(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    buffer.append(numbered(4, 5))
    assert [entry["message"] for entry in drain(buffer, most=2, limit=1)] == ["line 1", "line 2"]
    disk.on = False
    clock.now += 6
    buffer.append(numbered(6, 6))
    again = open_buffer(paths.buffer)
    assert again.dropped.total == 0
    assert messages(again) == messages(buffer) == ["line 3", "line 4", "line 5", "line 6"]
    buffer.close()
    again.close()


def test_damage_found_on_a_read_only_disk_is_put_in_order_once_and_not_found_again(paths: Paths) -> None:
    first = open_buffer(paths.buffer)
    for number in range(1, 5):
        first.append(numbered(number, number))
    first.close()
    with open(paths.buffer, "r+b") as file:
        file.seek(file.read().index(b"line 2"))
        file.write(b"l\xffn")
    disk, clock = ReadOnly(), Clock()
    buffer = open_on(paths.buffer, disk, clock)
    lost = buffer.dropped.total
    sent = messages(buffer)
    assert len(sent) + lost == 4
    disk.on = False
    clock.now += 6
    buffer.append(numbered(5, 5))
    custody = buffer.custody
    assert [custody.needs_compaction, custody.compact(), custody.needs_compaction] == [True, True, False]
    again = open_buffer(paths.buffer)
    assert again.dropped.total == lost
    assert messages(again) == ["line 5"]
    buffer.close()
    again.close()


def test_a_folder_that_appears_late_brings_its_journal_back(paths: Paths) -> None:
    first = open_buffer(paths.buffer)
    first.append(numbered(1, 3, offset=3))
    first.close()
    away = f"{paths.etc}-away"
    os.rename(paths.etc, away)
    clock = Clock()
    buffer = open_on(paths.buffer, Disk(), clock)
    buffer.append(numbered(4, 5))
    assert buffer.custody.refused is not None
    os.rename(away, paths.etc)
    clock.now += 6
    buffer.append(numbered(6, 6))
    assert buffer.offsets == {"api:stdout": 3}
    again = open_buffer(paths.buffer)
    assert messages(again) == messages(buffer) == [f"line {n}" for n in range(1, 7)]
    buffer.close()
    again.close()


def test_a_journal_removed_while_in_use_is_written_anew(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 3))
    os.unlink(paths.buffer)
    assert not buffer.custody.is_in_place()
    buffer.append(numbered(4, 4))
    assert buffer.custody.compact()
    assert buffer.custody.is_in_place()
    again = open_buffer(paths.buffer)
    assert messages(again) == [f"line {n}" for n in range(1, 5)]
    buffer.close()
    again.close()


def test_a_journal_emptied_by_somebody_else_costs_what_was_in_it_and_no_more(paths: Paths) -> None:
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 3))
    os.truncate(paths.buffer, 0)
    buffer.append(numbered(4, 6))
    assert messages(buffer) == ["line 4", "line 5", "line 6"]
    assert buffer.dropped.total == 3
    buffer.close()


@pytest.mark.parametrize("what", ["folder", "fifo", "dangling", "loop"])
def test_something_else_in_the_journals_place_is_kept_aside(paths: Paths, what: str) -> None:
    match what:
        case "folder":
            os.mkdir(paths.buffer)
        case "fifo":
            os.mkfifo(paths.buffer)
        case "dangling":
            os.symlink("elsewhere.jsonl", paths.buffer)
        case "loop":
            os.symlink("buffer.jsonl", paths.buffer)
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 2))
    assert buffer.custody.refused is None
    buffer.close()
    again = open_buffer(paths.buffer)
    assert messages(again) == ["line 1", "line 2"]
    again.close()


@needs_root
def test_a_journal_that_may_not_be_read_is_kept_aside(paths: Paths) -> None:
    with open(paths.buffer, "w", encoding="ascii") as file:
        file.write("somebody else's\n")
    os.chmod(paths.buffer, 0)
    os.chmod(paths.root, 0o755)
    os.chown(paths.etc, 65534, 65534)
    program = (
        "import os, sys; from tests.logs.journals import numbered, open_buffer\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "buffer = open_buffer(sys.argv[1]); buffer.append(numbered(1, 2)); buffer.close()\n"
        "assert buffer.custody.refused is None"
    )
    subprocess.run([sys.executable, "-c", program, paths.buffer], check=True, cwd=REPOSITORY, timeout=60)
    assert os.path.getsize(f"{paths.buffer}.unusable") == 16
    again = open_buffer(paths.buffer)
    assert messages(again) == ["line 1", "line 2"]
    again.close()


def test_a_journal_that_is_a_link_stays_one(paths: Paths, root: object) -> None:
    target = os.path.join(str(root), "elsewhere.jsonl")
    os.symlink(target, paths.buffer)
    buffer = open_buffer(paths.buffer)
    buffer.append(numbered(1, 2))
    assert buffer.custody.compact()
    assert os.path.islink(paths.buffer)
    again = open_buffer(target)
    assert messages(again) == ["line 1", "line 2"]
    buffer.close()
    again.close()
