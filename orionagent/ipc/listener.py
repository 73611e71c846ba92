"""Owns the listening Unix socket and its name in the folder, which comes back when somebody deletes it.

Must not know what is said on the connections.
"""

import ctypes
import errno
import logging
import os
import stat
import struct

import gevent
from gevent import socket
from gevent.event import Event

from orionagent.errors import AlreadyRunning, OrionError

log = logging.getLogger(__name__)

BACKLOG = 128
MOST_PATH_BYTES = 107
"""Of a socket's address, unix(7)."""

_ANSWERED = (0, errno.EAGAIN, errno.EINPROGRESS)
LOOK_S = 30.0
"""How often the name is looked at where inotify is not to be had, and as a second net where it is."""

RETRY_S = 1.0
_DELETE, _MOVED_FROM, _DELETE_SELF, _MOVE_SELF = 0x200, 0x40, 0x400, 0x800
_PEER_GROUPS = 59

_libc = ctypes.CDLL(None, use_errno=True)


class Listener:
    """The socket that people connect to. Sole writer of its name in the folder."""

    def __init__(self, path: str, inherited_fd: int | None = None) -> None:
        self.path = path
        self._inherited_fd = inherited_fd
        self._socket: socket.socket | None = None
        self._identity: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Listener({self.path!r}, {'open' if self._socket else 'closed'})"

    def open(self) -> None:
        """Take over the inherited socket, or replace what a dead daemon left by a new one, in one step.

        Raises:
            AlreadyRunning: somebody answers there.
            OrionError: the socket cannot be made.
        """
        if self._inherited_fd is not None:
            self._socket = _adopt(self._inherited_fd)
            self._inherited_fd = None
            self._identity = self._look()
            if self._socket is not None and self._identity is not None:
                return
        self._check_free()
        self._bind()

    def _check_free(self) -> None:
        if os.path.lexists(self.path) and self._look() is None:
            raise OrionError(f"cannot listen on {self.path}: it is not a socket; move it away")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if len(os.fsencode(self.path)) < MOST_PATH_BYTES and probe.connect_ex(self.path) in _ANSWERED:
                raise AlreadyRunning(f"cannot listen on {self.path}: another daemon answers there; stop it first")

    def _bind(self) -> None:
        new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Bound under another name and renamed: at no time is there a name behind which nobody listens.
        temporary = f"{self.path}~"
        if len(os.fsencode(temporary)) > MOST_PATH_BYTES:
            new.close()
            raise OrionError(
                f"cannot listen on {self.path}: over {MOST_PATH_BYTES - 1} bytes; choose a shorter ORION_ROOT"
            )
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            if os.path.lexists(temporary):
                os.unlink(temporary)
            new.bind(temporary)
            os.chmod(temporary, 0o666)  # noqa: S103 - authority comes from the peer's uid, not from the mode
            new.listen(BACKLOG)
            os.rename(temporary, self.path)
        except OSError as error:
            new.close()
            raise OrionError(f"cannot listen on {self.path}: {error.strerror or error}; check its folder") from error
        old, self._socket = self._socket, new
        self._identity = self._look()
        if old is not None:
            old.close()

    def _look(self) -> tuple[int, int] | None:
        """Return which socket bears the name, None where it is none."""
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None

    def accept(self) -> socket.socket:
        """Block until somebody connects.

        Raises:
            OSError: as accept(2); also when the socket was replaced or closed meanwhile.
        """
        if self._socket is None:
            raise OSError("not listening")
        connection, _ = self._socket.accept()
        return connection

    def keep_name(self) -> None:
        """Bring the socket back whenever its name is deleted or taken; blocks for ever."""
        watch = FolderWatch(os.path.dirname(self.path))
        try:
            while True:
                # Looked at after the watch is there and before it is waited for: no deletion slips through.
                if self._identity is not None and self._look() == self._identity:
                    watch.wait(LOOK_S)
                    continue
                try:
                    self._bind()
                    log.warning("%s was deleted: made it anew", self.path)
                except OrionError as error:
                    log.error("%s", error.message)
                    gevent.sleep(RETRY_S)
                watch.renew()
        finally:
            watch.close()

    def detach(self) -> int:
        """Give the listening descriptor away, open; the name stays."""
        assert self._socket is not None
        kept, self._socket = self._socket, None
        return kept.detach()

    def close(self) -> None:
        """Stop listening and delete the name if it is still ours."""
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        if self._identity is not None and self._look() == self._identity:
            os.unlink(self.path)


def _adopt(descriptor: int) -> socket.socket | None:
    """Return the inherited descriptor as a socket; None, and closed, where it is no listening one."""
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        log.warning("cannot take over the inherited socket: %s; making a new one", error)
        if error.errno != errno.EBADF:
            os.close(descriptor)
        return None
    if found.family == socket.AF_UNIX and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return found
    log.warning("the inherited socket does not listen; making a new one")
    found.close()
    return None


class FolderWatch:
    """An inotify descriptor on one folder; without inotify every wait takes its whole time."""

    def __init__(self, folder: str) -> None:
        self._folder = os.fsencode(folder)
        self._fd = -1
        self._event = Event()
        self.renew()

    def renew(self) -> None:
        """Watch the folder that bears the name now."""
        self.close()
        self._event.clear()
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            return
        _libc.inotify_add_watch(self._fd, self._folder, _DELETE | _MOVED_FROM | _DELETE_SELF | _MOVE_SELF)
        self._watcher = gevent.get_hub().loop.io(self._fd, 1)
        self._watcher.start(self._drain)

    def _drain(self) -> None:
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return
        self._event.set()

    def wait(self, timeout_s: float) -> None:
        """Block until something left the folder, at most `timeout_s`."""
        self._event.wait(timeout_s)
        self._event.clear()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd < 0:
            return
        self._watcher.stop()
        self._watcher.close()
        os.close(self._fd)
        self._fd = -1


def peer_of(connection: socket.socket) -> tuple[int, frozenset[int]]:
    """Return uid and all group ids of who connected, as of that moment.

    Raises:
        OSError: the kernel does not tell.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, gid = struct.unpack("iII", credentials)
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, 1024)
    except OSError:
        # More than 256 groups, or a kernel before 4.13: the main group has to do.
        packed = b""
    return uid, frozenset((gid, *struct.unpack(f"{len(packed) // 4}I", packed)))
