"""Owns `Pump`: one output pipe of one script and the bytes in it until they are safe elsewhere.

Knows nothing of where the lines go: `emit` returns once they may leave the pipe.

A line leaves its pipe only after `emit`. So the bytes are first copied out with tee(2), and consumed by splicing
them into a position file beside the pipe. The kernel moves the bytes and grows the file in one step that a SIGKILL
cannot cut in two, so the file's size always is the stream's consumed offset; its blocks are given back at once.
A later agent compares that with the offset of the last batch it finds in the buffer and knows to the byte what of
the pipe it has already.
"""

import errno
import fcntl
import logging
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import gevent
import msgspec
from gevent.event import Event
from gevent.lock import RLock
from gevent.monkey import get_original

from orionagent.scripts.edges import Edges
from orionagent.scripts.kernel import punch_hole, tee
from orionagent.scripts.lines import LineSplitter
from orionagent.scripts.spawn import to_spawn_error
from orionagent.wire import Batch

log = logging.getLogger(__name__)

PIPE_BYTES = 1 << 20
PEEK_BYTES = 256 * 1024
EAGER_BYTES = 128 * 1024
NAP_S = 0.05
PUNCH_EVERY_BYTES = 4 << 20
F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
FIONREAD = 0x541B
POLLIN, POLLHUP = 1, 16
poll = get_original("select", "poll")


def now_text(now_s: float) -> str:
    """Return RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Scratch:
    """A pipe of our own that tee(2) copies into; empty between uses, so one serves all pumps."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        set_pipe_size(self.write_end)

    def peek(self, fd: int) -> bytes:
        """Return up to 256 KiB from the head of a pipe without consuming it; b"" when it holds nothing."""
        try:
            size = tee(fd, self.write_end, PEEK_BYTES)
        except BlockingIOError:
            return b""
        if size == 0:
            return b""
        data = os.read(self.read_end, size)
        while len(data) < size:
            data += os.read(self.read_end, size - len(data))
        return data

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_end)
        os.close(self.write_end)


def set_pipe_size(fd: int) -> None:
    """Enlarge a pipe as far as this user may; a smaller one works too, only with less slack."""
    for size in (PIPE_BYTES, PIPE_BYTES // 4):
        try:
            fcntl.fcntl(fd, F_SETPIPE_SZ, size)
        except OSError:
            continue
        return


class PipeFiles:
    """The named pipe of one stream and its position file. They outlive this process image."""

    def __init__(self, folder: str, script: str, stream: str) -> None:
        self._script = script
        self.fifo = os.path.join(folder, f"{script}.{stream}")
        self.position = f"{self.fifo}.pos"

    def open(self, known_offset: int) -> tuple[int, int]:
        """Return (read end, position file), made where missing; a new stream starts at `known_offset`.

        Raises:
            SpawnError: the runtime folder does not take them.
        """
        try:
            os.makedirs(os.path.dirname(self.fifo), mode=0o711, exist_ok=True)
            if not os.path.exists(self.position):
                fresh = os.open(f"{self.position}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                os.ftruncate(fresh, known_offset)
                os.close(fresh)
                os.rename(f"{self.position}.new", self.position)
            try:
                if not stat.S_ISFIFO(os.lstat(self.fifo).st_mode):
                    os.unlink(self.fifo)
                    os.mkfifo(self.fifo, 0o600)
            except FileNotFoundError:
                os.mkfifo(self.fifo, 0o600)
            reader = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                position = os.open(self.position, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                os.close(reader)
                raise
            os.lseek(position, 0, os.SEEK_END)
        except OSError as error:
            raise to_spawn_error(self._script, f"make the output pipe {self.fifo}", error) from error
        set_pipe_size(reader)
        return reader, position

    def open_writer(self, uid: int, gid: int) -> int:
        """Return an end for a child. It is read-write, so that the child never gets SIGPIPE when we die.

        The pipe belongs to the script's user: programs that open /dev/stderr need that.
        """
        try:
            if os.stat(self.fifo).st_uid != uid:
                os.chown(self.fifo, uid, gid)
            writer = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise to_spawn_error(self._script, f"open the output pipe {self.fifo}", error) from error
        return writer

    def remove(self) -> None:
        """Delete both; used when a script is removed."""
        for path in (self.fifo, self.position):
            if os.path.lexists(path):
                os.unlink(path)


class Pump:
    """Moves one stream's lines out of its pipe. Sole writer of its splitter and position file."""

    def __init__(
        self,
        pipe: str,
        files: PipeFiles,
        splitter: LineSplitter,
        emit: Callable[[Batch], object],
        *,
        edges: Edges,
        scratch: Scratch,
        reader: int,
        position: int,
        buffered_offset: int,
        last_lines: deque[str],
    ) -> None:
        self.pipe = pipe
        self.files = files
        self.reader = reader
        self._position = position
        self._splitter = splitter
        self._emit = emit
        self._edges = edges
        self._scratch = scratch
        self._last_lines = last_lines
        self._capacity: int = fcntl.fcntl(reader, F_GETPIPE_SZ)
        self._punched = self.consumed_offset
        self._more = Event()
        self._lock = RLock()
        self._seen = -1
        self._hold_s: float | None = None
        self._skip(buffered_offset - self.consumed_offset)
        edges.add(reader, self._more.set)

    def __repr__(self) -> str:
        return f"Pump({self.files.fifo!r}, consumed={self.consumed_offset})"

    @property
    def consumed_offset(self) -> int:
        """How many bytes of this stream have left the pipe, over all agents' lives."""
        return os.fstat(self._position).st_size

    def run(self) -> None:
        """Move lines until killed; sleeps without ticking while nothing is added to the pipe."""
        while True:
            self._edges.arm(self.reader)
            expired = self._wait_for_news()
            self._edges.disarm(self.reader)
            if not expired:
                gevent.sleep(NAP_S)
            while self.advance(expired=expired) >= EAGER_BYTES:
                expired = False
                gevent.sleep(0)

    def _wait_for_news(self) -> bool:
        """Sleep until the pipe has more than the tail that was left in it; True when that tail's time is up instead.

        Arming reports a tail that is there already, and an end that was seen before: only later edges count.
        """
        while True:
            expired = not self._more.wait(self._hold_s)
            self._more.clear()
            if expired or self._has_news():
                return expired

    def drain(self, timeout_s: float) -> None:
        """Move what is in the pipe now, an unfinished line too if no writer is left; give up at the deadline."""
        with gevent.Timeout(timeout_s, False):  # type: ignore[arg-type]
            while self.advance(expired=True) > 0:
                pass

    def advance(self, *, expired: bool) -> int:
        """Look at the pipe's head, emit its complete lines, consume them; return how many bytes that were."""
        with self._lock:
            chunk = self._scratch.peek(self.reader)
            self._seen = len(chunk)
            if not chunk:
                self._hold_s = None
                return 0
            now_s = time.monotonic()
            # Once the last writer is gone nothing is added: what it wrote after the look belongs to the same end.
            final = len(chunk) < PEEK_BYTES and self._has_no_writer() and self._size() == len(chunk)
            before = self._splitter.state()
            text = now_text(time.time())
            fed = self._splitter.feed(chunk, now_s, text, expired=expired, final=final)
            if not fed.consumed and fed.hold_s is None and 2 * len(chunk) >= self._capacity:
                # An unfinished line that fills a pipe would be waited for in vain: its writer waits for room.
                # Half is full, for writes of little more than half a page take a page each.
                fed = self._splitter.feed(chunk, now_s, text, full=True)
            self._hold_s = fed.hold_s
            if fed.batch is not None:
                try:
                    self._emit(msgspec.structs.replace(fed.batch, pipe=self.pipe))
                except BaseException:  # a deadline, a kill: nothing is consumed, the same bytes are looked at again
                    self._splitter.restore(before)
                    raise
                self._last_lines.extend(fed.batch.messages[-(self._last_lines.maxlen or 1) :])
            self._skip(fed.consumed)
            self._seen = len(chunk) - fed.consumed
            return fed.consumed

    def close(self) -> None:
        """Close our ends; the pipe lives on in its writers."""
        self._edges.remove(self.reader)
        os.close(self.reader)
        os.close(self._position)

    def _has_news(self) -> bool:
        """Tell whether the pipe holds anything but the tail that was left in it, or has lost its last writer."""
        size = self._size()
        return size != max(self._seen, 0) or (size > 0 and self._has_no_writer())

    def _size(self) -> int:
        """Return how many bytes the pipe holds."""
        return int.from_bytes(fcntl.ioctl(self.reader, FIONREAD, b"\0\0\0\0"), "little")

    def _has_no_writer(self) -> bool:
        watch = poll()
        watch.register(self.reader, POLLIN)
        return any(events & POLLHUP for _, events in watch.poll(0))

    def _skip(self, size: int) -> None:
        """Consume `size` bytes from the pipe's head, which become part of the position file's size."""
        left = size
        while left > 0:
            try:
                moved = os.splice(self.reader, self._position, left)
            except BlockingIOError:
                # Only after the pipe was lost with its last holder: what we have in the buffer is all there is.
                self._advance_position(left)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG):
                    raise
                moved = len(os.read(self.reader, left))
                self._advance_position(moved)
            if moved == 0:
                self._advance_position(left)
                return
            left -= moved
        if self.consumed_offset - self._punched > PUNCH_EVERY_BYTES:
            self._give_back_blocks()

    def _advance_position(self, size: int) -> None:
        os.ftruncate(self._position, self.consumed_offset + size)
        os.lseek(self._position, 0, os.SEEK_END)

    def _give_back_blocks(self) -> None:
        end = self.consumed_offset
        punch_hole(self._position, end)
        self._punched = end
