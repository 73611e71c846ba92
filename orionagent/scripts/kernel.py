"""Owns the Linux calls that Python lacks: tee, prctl, pidfds, memfds, signalfd.

Knows nothing of scripts; every function takes and gives plain numbers.
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

SPLICE_F_NONBLOCK = 2
PR_SET_CHILD_SUBREAPER = 36
FALLOC_PUNCH_HOLE_KEEP_SIZE = 3
SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
SIGINFO_SIZE = 128

# The packaged interpreter is built for glibc 2.17, where `os` has no pidfd_open, P_PIDFD and memfd_create and
# `signal` no pidfd_send_signal. These numbers are the same on every architecture.
SYS_PIDFD_SEND_SIGNAL = 424
SYS_PIDFD_OPEN = 434
P_PIDFD = 3  # linux/wait.h, for os.waitid
MFD_CLOEXEC = 1

# ioctl(pidfd, PIDFD_GET_INFO, struct pidfd_info): linux/pidfd.h, exit status since Linux 6.15.
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_SIZE = 64
PIDFD_INFO_EXIT = 8
PIDFD_INFO_ALL = 0x1F
PIDFD_EXIT_OFFSET = 60


def _fail(call: str) -> OSError:
    errno = ctypes.get_errno()
    return OSError(errno, f"{call}: {os.strerror(errno)}")


def tee(source: int, target: int, size: int) -> int:
    """Copy up to `size` bytes from the head of one pipe to another without consuming them; never blocks.

    Returns 0 at end of file.

    Raises:
        BlockingIOError: the source is empty or the target full.
    """
    while True:
        copied: int = _libc.tee(source, target, ctypes.c_size_t(size), SPLICE_F_NONBLOCK)
        if copied >= 0:
            return copied
        if ctypes.get_errno() != 4:  # EINTR
            raise _fail("tee")


def become_subreaper(wanted: bool = True) -> None:
    """Let orphans below this process become its children instead of init's, or no longer."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
        raise _fail("prctl(PR_SET_CHILD_SUBREAPER)")


def punch_hole(fd: int, end: int) -> None:
    """Give the file's space before `end` back while its size stays."""
    offset = ctypes.c_int64(0)
    length = ctypes.c_int64(end)
    if _libc.fallocate64(fd, FALLOC_PUNCH_HOLE_KEEP_SIZE, offset, length) != 0:
        raise _fail("fallocate(PUNCH_HOLE)")


def open_signals(signals: Iterable[int]) -> int:
    """Return a descriptor that becomes readable when one of these (blocked) signals is pending."""
    mask = (ctypes.c_uint64 * 16)()
    for number in signals:
        mask[0] |= 1 << (number - 1)
    fd: int = _libc.signalfd(-1, ctypes.byref(mask), SFD_FLAGS)
    if fd < 0:
        raise _fail("signalfd")
    return fd


def read_signals(fd: int) -> list[int]:
    """Return the numbers of the pending signals and take them; [] when there is none."""
    try:
        data = os.read(fd, 32 * SIGINFO_SIZE)
    except BlockingIOError:
        return []
    return [struct.unpack_from("I", data, at)[0] for at in range(0, len(data), SIGINFO_SIZE)]


def exit_status_of_stranger(pidfd: int) -> int | None:
    """Return the wait status of an ended process that is not this process's child, or None.

    None while it runs, before its parent has reaped it, and on kernels before 6.15.
    """
    info = bytearray(PIDFD_INFO_SIZE)
    struct.pack_into("Q", info, 0, PIDFD_INFO_ALL)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    if not struct.unpack_from("Q", info, 0)[0] & PIDFD_INFO_EXIT:
        return None
    status: int = struct.unpack_from("i", info, PIDFD_EXIT_OFFSET)[0]
    return status


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind a pidfd; False when it is gone already, or not ours to signal (setuid programs)."""
    if _libc.syscall(ctypes.c_long(SYS_PIDFD_SEND_SIGNAL), pidfd, number, None, 0) == 0:
        return True
    failure = _fail("pidfd_send_signal")
    if isinstance(failure, (ProcessLookupError, PermissionError)):
        return False
    raise failure


def open_pidfd(pid: int) -> int:
    """Return a descriptor that means this very process, closed on exec; readable once it has ended.

    Raises:
        ProcessLookupError: there is no such process any more.
        OSError: no descriptor is free.
    """
    fd: int = _libc.syscall(ctypes.c_long(SYS_PIDFD_OPEN), pid, 0)
    if fd < 0:
        raise _fail("pidfd_open")
    return fd


def pid_of_pidfd(pidfd: int) -> int | None:
    """Return which process a pidfd means; None once that is gone."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                pid = int(line.split()[1])
                return pid if pid > 0 else None
    return None


def create_memfd(name: str) -> int:
    """Return a file that exists in memory only, closed on exec.

    Raises:
        OSError: no descriptor or memory is free.
    """
    fd: int = _libc.memfd_create(name.encode(), MFD_CLOEXEC)
    if fd < 0:
        raise _fail("memfd_create")
    return fd
