"""Owns reading and writing the product's files so that a crash or a stranger cannot spoil them.

Knows nothing of what is in them.
"""

import errno
import os
import stat

from orionagent.errors import ConfigError

LARGEST_BYTES = 16 << 20


def write_atomic(path: str, data: bytes, mode: int | None = None, *, sync: bool = True) -> None:
    """Replace a file's content in one step, keeping owner and mode of the one before.

    `mode` is for a new file. With `sync` the content and the rename are on the disk on return (which blocks for
    as long as the disk takes). A symlink is followed, so that it stays one.

    Raises:
        OSError: the file is as it was before.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    temporary = f"{path}.{os.getpid()}.new"
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if before is not None:
                os.fchmod(fd, stat.S_IMODE(before.st_mode))
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    _keep_owner(fd, before)
            elif mode is not None:
                os.fchmod(fd, mode)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    if sync:
        sync_folder(folder)


def _keep_owner(fd: int, before: os.stat_result) -> None:
    try:
        os.fchown(fd, before.st_uid, before.st_gid)
    except PermissionError:
        # Only root can give a file away; whoever may write the folder may own the new file.
        return


def sync_folder(folder: str) -> None:
    """Put a folder's entries on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise
    finally:
        os.close(fd)


def read_guarded(path: str, *, for_commands: bool = False) -> bytes | None:
    """Return a file's content, None when there is none.

    With `for_commands` the content decides what is executed: then nobody but root and this user may be able to
    write the file, its folder, or stand behind a link in its place.

    Raises:
        ConfigError: it cannot be read, is no regular file, is too large, or is not safe.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if for_commands else 0)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"refusing {path}: it is a symbolic link; put the file itself there") from error
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"cannot read {path}: it is not a regular file; move it away")
        if found.st_size > LARGEST_BYTES:
            raise ConfigError(f"cannot read {path}: {found.st_size} bytes is more than {LARGEST_BYTES}")
        if for_commands:
            _check_owner(path, found)
            _check_owner(os.path.dirname(path), os.stat(os.path.dirname(path)))
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read()
    finally:
        os.close(fd)


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"refusing {path}: it belongs to uid {found.st_uid}, who could change what runs; chown root {path}"
        )
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(f"refusing {path}: others can write it and so change what runs; chmod go-w {path}")
