"""Owns the lock of a root: one agent runs for it at a time.

Knows nothing of what the agent does.
"""

import fcntl
import os

from orionagent.errors import AlreadyRunning
from orionagent.paths import Paths


def take_lock(paths: Paths) -> int:
    """Lock the root for this process and write its pid down; return the descriptor that holds the lock.

    Raises:
        AlreadyRunning: another agent holds it; the message says which.
    """
    os.makedirs(paths.run, mode=0o755, exist_ok=True)
    fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 20).decode("ascii", "replace").strip()
        os.close(fd)
        raise AlreadyRunning(
            f"cannot start: an agent already runs for {paths.root} (pid {holder or 'unknown'}); "
            "stop it first, or set ORION_ROOT to run another"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
