"""Owns reading and writing the product's files so that a crash or a stranger cannot spoil them.

Knows nothing of what is in them.
"""

import errno
import os
import secrets
import shlex
import stat
from collections.abc import Callable

from orionagent.errors import ConfigError

LARGEST_BYTES = 16 << 20


def write_atomic(
    path: str,
    data: bytes,
    mode: int | None = None,
    *,
    sync: bool = True,
    follow: bool = True,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace a file's content in one step, keeping owner and mode of the one before.

    `mode` and `owner` (uid, gid) are for a new file; without them it is 0600 and the caller's. With `sync` the
    content and the rename are on the disk on return (which blocks for as long as the disk takes, and with it
    every greenlet of the thread). A symlink is followed, so that it stays one; in a folder that a
    stranger can write, `follow=False` replaces it.

    Raises:
        OSError: the file is as it was before.
    """
    folder, name = os.path.split(os.path.realpath(path) if follow else os.path.abspath(path))
    temporary = f".{name}.{secrets.token_hex(4)}.new"
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _regular(name, folder_fd)
        # O_EXCL: where others can write the folder, nothing of theirs is opened in the temporary file's place.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=folder_fd)
        try:
            try:
                _fill(fd, data, before, 0o600 if mode is None else mode, owner)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        except BaseException:
            os.unlink(temporary, dir_fd=folder_fd)
            raise
        if sync:
            _sync_entries(folder_fd)
    finally:
        os.close(folder_fd)


def _regular(name: str, folder_fd: int) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _fill(fd: int, data: bytes, before: os.stat_result | None, mode: int, owner: tuple[int, int] | None) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    if before is not None:
        owner, mode = (before.st_uid, before.st_gid), stat.S_IMODE(before.st_mode)
    if owner is not None and owner != (os.geteuid(), os.getegid()):
        try:
            os.fchown(fd, *owner)
        except PermissionError:
            # Only root can give a file away; whoever may write the folder may own the new file. What was open
            # to the old group is not opened to another one.
            mode &= ~(stat.S_IRWXG | stat.S_ISUID | stat.S_ISGID)
    os.fchmod(fd, mode)


def sync_folder(folder: str) -> None:
    """Put a folder's entries on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync_entries(fd)
    finally:
        os.close(fd)


def _sync_entries(folder_fd: int) -> None:
    try:
        os.fsync(folder_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise


def read_guarded(
    path: str,
    *,
    for_commands: bool = False,
    follow: bool = True,
    judge: Callable[[os.stat_result], None] | None = None,
) -> bytes | None:
    """Return a file's content, None when there is none. Never waits on a FIFO that lies in its place.

    With `for_commands` the content decides what is executed: then nobody but root and this user may be able to
    write the file, its folder, or stand behind a link in its place. File and folder are judged by the
    descriptors that are read, so nothing can be exchanged in between. With `follow=False` neither the file nor
    its folder may be a symlink: somebody may have planted it who cannot read what is behind it. `judge` is shown
    what was opened before any of it is read, and raises ConfigError to refuse it.

    Raises:
        ConfigError: it cannot be read, is no regular file, is too large, or is not safe; names the remedy.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        nofollow = 0 if follow else os.O_NOFOLLOW
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | nofollow)
        try:
            if for_commands:
                _check_owner(folder, os.fstat(folder_fd))
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if for_commands else nofollow)
            fd = os.open(name, flags, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        link = None if follow else next((each for each in (folder, path) if os.path.islink(each)), None)
        raise (_unreadable(path, error) if link is None else _led_away(link)) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"cannot read {path}: it is not a regular file; move it away")
        if found.st_size > LARGEST_BYTES:
            raise ConfigError(f"cannot read {path}: {found.st_size} bytes is more than {LARGEST_BYTES}; shorten it")
        if for_commands:
            _check_owner(path, found)
        if judge is not None:
            judge(found)
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(LARGEST_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)


def _led_away(link: str) -> ConfigError:
    return ConfigError(
        f"refusing {link}: it is a symbolic link and may lead to what is somebody else's;"
        f" look where it leads, then run: sudo rm {shlex.quote(link)}"
    )


def _unreadable(path: str, error: OSError) -> ConfigError:
    if error.errno == errno.ELOOP:
        quoted = shlex.quote(path)
        return ConfigError(
            f"refusing {path}: it is a symbolic link; put the file itself there, run:"
            f' sudo cp --remove-destination "$(readlink -f {quoted})" {quoted}'
        )
    remedy = "; run this as root or as its owner" if error.errno in (errno.EACCES, errno.EPERM) else ""
    return ConfigError(f"cannot read {path}: {error.strerror}{remedy}")


def _check_owner(path: str, found: os.stat_result) -> None:
    """Refuse what others can write. With a POSIX ACL the group bits are its mask: a named user shows there."""
    quoted = shlex.quote(path)
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"refusing {path}: it belongs to uid {found.st_uid}, who could change what runs; check it, then run:"
            f" sudo chown {'root' if os.geteuid() == 0 else os.geteuid()} {quoted}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"refusing {path}: others can write it and so change what runs; check it, then run:"
            f" sudo chmod go-w {quoted}"
        )
