"""Owns a stand-in for systemd's descriptor store: it keeps what FDSTORE=1 brings and gives it to the next start.

Knows nothing of what the descriptors are. Fixture `stored`: a daemon below such a service manager.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator

import gevent
import pytest

from orionagent.paths import Paths
from tests.end_to_end.daemon import ORION, Daemon

SYS_KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine)
HIGH = 200
_libc = ctypes.CDLL(None, use_errno=True)


def is_same_file(left: int, right: int) -> bool:
    """Tell whether two descriptors are one open file, as systemd does (kcmp, KCMP_FILE)."""
    pid = os.getpid()
    return SYS_KCMP is not None and _libc.syscall(SYS_KCMP, pid, pid, 0, left, right) == 0


class StoredDaemon(Daemon):
    """A daemon whose descriptors outlive it in this process. Sole owner of the kept copies."""

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths)
        self.kept: list[tuple[str, int]] = []
        self.messages: list[str] = []
        address = os.path.join(paths.root, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self.environment = {**self.environment, "NOTIFY_SOCKET": address}
        self._receiver = gevent.spawn(self._receive)

    def _receive(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 253)
            fields = dict(line.partition("=")[::2] for line in data.decode().split("\n"))
            self.messages.append(data.decode())
            name = fields.get("FDNAME", "")
            if "FDSTOREREMOVE" in fields:
                for kept in [item for item in self.kept if item[0] == name]:
                    self.kept.remove(kept)
                    os.close(kept[1])
            for fd in descriptors:
                if "FDSTORE" in fields and not any(is_same_file(fd, other) for _, other in self.kept):
                    # Newest first, as systemd gives them back.
                    self.kept.insert(0, (name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)))
                os.close(fd)

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start the daemon with everything that is kept, as LISTEN_FDS."""
        given = [fd for _, fd in self.kept]
        moves = " ".join(f"{3 + index}<&{fd}" for index, fd in enumerate(given))
        closes = " ".join(f"{fd}<&-" for fd in given)
        with open(os.path.join(self.paths.root, "daemon.err"), "ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f'exec {moves} {closes}\nLISTEN_PID=$$ exec "$0" daemon --foreground', ORION],
                env={
                    **self.environment,
                    "LISTEN_FDS": str(len(given)),
                    "LISTEN_FDNAMES": ":".join(name for name, _ in self.kept),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=given,
                start_new_session=True,
            )
        return self.process

    def close(self) -> None:
        """End the daemon, then the store."""
        super().close()
        self._receiver.kill()
        self._socket.close()
        for _, fd in self.kept:
            os.close(fd)


@pytest.fixture
def stored(paths: Paths) -> Iterator[StoredDaemon]:
    """Yield a daemon below a descriptor store, not started yet."""
    with contextlib.closing(StoredDaemon(paths)) as found:
        yield found
