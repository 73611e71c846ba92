"""Owns the system calls on the journal's file, as one object that a test can make fail.

Knows nothing of what the bytes mean. Everything blocks for as long as the disk takes; errors are OSError.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

MODE = 0o600
MOST_PIECES = 512
"""Below IOV_MAX (1024) of Linux."""


class Disk:
    """Plain files. Subclass it to inject faults."""

    def open(self, path: str, *, fresh: bool = False, read_only: bool = False) -> int:
        """Return a descriptor for reading and writing, the file made if missing and emptied if `fresh`."""
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT | (os.O_TRUNC if fresh else 0)
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, MODE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if fresh:
                os.fchmod(descriptor, MODE)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
        """Write all pieces one after the other from `offset` on."""
        pending = list(pieces)
        while pending:
            written = os.pwritev(descriptor, pending[:MOST_PIECES], offset)
            offset += written
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if written:
                pending[0] = pending[0][written:]

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer at the end of the file."""
        found = os.pread(descriptor, size, offset)
        if len(found) == size or not found:
            return found
        pieces = [found]
        missing = size - len(found)
        while missing:
            found = os.pread(descriptor, missing, offset + size - missing)
            if not found:
                break
            pieces.append(found)
            missing -= len(found)
        return b"".join(pieces)

    def copy(self, source: int, start: int, stop: int, target: int, offset: int) -> int:
        """Copy bytes `start` to `stop` of one file to `offset` of another; return where the source ended, if sooner.

        Inside the kernel: nothing passes through this process's memory or waits for its interpreter.
        """
        os.lseek(target, offset, os.SEEK_SET)
        while start < stop:
            copied = os.sendfile(target, source, start, stop - start)
            if not copied:
                break
            start += copied
        return start

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Return once the data is on the disk."""
        os.fdatasync(descriptor)

    def size(self, descriptor: int) -> int:
        """Return the file's size in bytes."""
        return os.fstat(descriptor).st_size

    def is_at(self, descriptor: int, path: str) -> bool:
        """Tell whether `path` still names the open file."""
        try:
            named = os.stat(path)
        except OSError:
            return False
        mine = os.fstat(descriptor)
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)

    def replace(self, source: str, target: str) -> None:
        """Rename; durable after `sync_folder`."""
        os.replace(source, target)

    def sync_folder(self, folder: str) -> None:
        """Return once the folder's names are on the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def close(self, descriptor: int) -> None:
        """Close a descriptor of `open`."""
        os.close(descriptor)
