"""Owns the file `buffer.jsonl`: opening, appending all or nothing, reading, replacing it by a smaller one.

Knows nothing of limits, delivery or flow control.
"""

import errno
import logging
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from orionagent.logs.disk import Disk
from orionagent.logs.extents import Extent
from orionagent.logs.journal import ALERT_START, ENTRY_START, Header, Record, encode_control
from orionagent.logs.moves import Moves

log = logging.getLogger(__name__)

COPY_BYTES = 1 << 20
CARRIES = 3
"""Times that what was appended during a rewrite is copied before the owner has to do the rest: each is shorter."""

UNREADABLE = -1
SET_ASIDE = (errno.EISDIR, errno.EACCES, errno.ENXIO, errno.EINVAL, errno.ELOOP)
"""What opening something that is no readable regular file says."""


class Rewritten(msgspec.Struct, frozen=True, kw_only=True):
    """A replacement that waits for `swap`: its first `end` bytes stand for the journal up to `covered`.

    What the journal holds from there on follows as it is, so far up to `carried`; that is worth nothing once the
    journal was cut (`cuts`). `moves` says where stretches of the old file went, `written` where extents with these
    (instance, first) did whose bytes were in memory.
    """

    descriptor: int
    end: int
    covered: int
    carried: int
    cuts: int
    moves: Moves
    written: Mapping[tuple[str, int], int]

    def place(self, extent: Extent, shift: int = 0) -> None:
        """Let an extent name its place in the new file; `shift`: how far what was appended since has moved."""
        if extent.payload is not None:
            extent.offset, extent.payload = self.written[extent.instance, extent.first], None
        elif extent.offset >= self.covered:
            extent.offset += shift
        elif extent.offset >= 0:
            offset = self.moves.find(extent.offset, extent.size)
            extent.offset = offset if offset is not None else UNREADABLE


class JournalFile:
    """The open journal. Sole writer of the file. Every method may raise OSError and blocks for the disk.

    `end` is where the next line goes: a failed append never leaves half a batch before it.
    """

    def __init__(self, path: str, disk: Disk | None = None) -> None:
        self.path = os.path.realpath(path)
        self._disk = disk or Disk()
        self._descriptor = -1
        self._ragged = False
        self._renamed = False
        self._cuts = 0
        self.refused: OSError | None = None
        self.end = 0

    def __repr__(self) -> str:
        return f"JournalFile({self.path!r}, end={self.end})"

    @property
    def is_open(self) -> bool:
        """Tell whether there is a file to append to."""
        return self._descriptor >= 0

    def open(self) -> int:
        """Open or create the file; return its size. `refused` says why it can only be read.

        What is no file of ours (a folder, a file we may not read) is renamed out of the way.
        """
        self.close()
        self._disk.remove(self._temporary)
        self.refused = None
        try:
            self._descriptor = self._disk.open(self.path)
        except OSError as error:
            self._descriptor = self._open_otherwise(error)
        self.end = self._disk.size(self._descriptor)
        return self.end

    def _open_otherwise(self, error: OSError) -> int:
        if error.errno in (errno.EROFS, errno.EACCES):
            try:
                descriptor = self._disk.open(self.path, read_only=True)
            except OSError:
                pass
            else:
                self.refused = error
                return descriptor
        if error.errno not in SET_ASIDE:
            raise error
        aside = f"{self.path}.unusable"
        log.error("cannot use %s: %s; it is kept as %s", self.path, error, aside)
        self._disk.replace(self.path, aside)
        return self._disk.open(self.path)

    def reopen(self) -> None:
        """Open for writing what could only be read until now."""
        descriptor = self._disk.open(self.path)
        if not self._disk.is_at(self._descriptor, self.path):
            self._disk.close(descriptor)
            raise OSError(errno.ESTALE, "another file has taken its place", self.path)
        self._disk.close(self._descriptor)
        self._descriptor, self.refused = descriptor, None

    @property
    def _temporary(self) -> str:
        return f"{self.path}.new"

    def close(self) -> None:
        """Close the file; what was appended stays."""
        if self.is_open:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def cut(self, end: int) -> None:
        """Forget everything from `end` on."""
        self.end = end
        self._cuts += 1
        self._ragged = True
        self._disk.truncate(self._descriptor, end)
        self._ragged = False

    def append(self, pieces: Sequence[bytes]) -> int:
        """Write whole lines at the end; return the offset of the first. All or nothing."""
        if self._ragged:
            self.cut(self.end)
        offset = self.end
        try:
            self._disk.write(self._descriptor, pieces, offset)
        except OSError:
            self._ragged = True
            try:
                self.cut(offset)
            except OSError as error:
                log.debug("cannot cut %s back now: %s", self.path, error)
            raise
        self.end = offset + sum(map(len, pieces))
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes."""
        return self._disk.read(self._descriptor, size, offset)

    def sync(self) -> None:
        """Return once everything appended so far is on the disk, under this name. May run in any thread."""
        if self.is_open:
            self._disk.sync(self._descriptor)
        if self._renamed:
            self._disk.sync_folder(os.path.dirname(self.path))
            self._renamed = False

    def is_in_place(self) -> bool:
        """Tell whether the path still names this file: somebody may have removed or replaced it."""
        return self.is_open and self._disk.is_at(self._descriptor, self.path)

    def rewrite(self, extents: Iterable[Extent], header: Header, covered: int) -> Rewritten:
        """Write the given extents and nothing else to a temporary file and sync it.

        May run in another thread while the owner appends: it reads only what `extents` name, and then carries
        over most of what was appended meanwhile. `header` is the one in force, `covered` the end of the journal,
        both as of when `extents` were listed.
        """
        cuts = self._cuts
        # A rewrite that was given up may still be at work in its thread: it keeps its own file.
        self._disk.remove(self._temporary)
        descriptor = self._disk.open(self._temporary, fresh=True)
        try:
            end, moves, written = 0, Moves(), {}
            instance, pieces, pending = None, [], 0
            for extent in extents:
                if extent.instance != instance:
                    instance = extent.instance
                    pieces.append(encode_control(Header(instance=instance, bootId=header.bootId)))
                    pending += len(pieces[-1])
                payload = extent.payload
                if payload is None:
                    payload = self.read(extent.offset, extent.size)
                    if not is_whole(extent, payload):
                        continue
                    moves.add(extent.offset, end + pending, extent.size)
                else:
                    written[extent.instance, extent.first] = end + pending
                pieces += (payload, encode_control(record_of(extent, zlib.crc32(payload))))
                pending += len(payload) + len(pieces[-1])
                if pending >= COPY_BYTES:
                    self._disk.write(descriptor, pieces, end)
                    end += pending
                    pieces, pending = [], 0
            pieces.append(encode_control(header))
            pending += len(pieces[-1])
            self._disk.write(descriptor, pieces, end)
            end += pending
            self._disk.sync(descriptor)
            carried = covered
            for _ in range(CARRIES):
                carried = self._disk.copy(self._descriptor, carried, self.end, descriptor, end - covered + carried)
        except BaseException:
            self.discard(descriptor)
            raise
        return Rewritten(
            descriptor=descriptor, end=end, covered=covered, carried=carried, cuts=cuts, moves=moves, written=written
        )

    def discard(self, descriptor: int) -> None:
        """Throw a replacement away."""
        self._disk.close(descriptor)
        self._disk.remove(self._temporary)

    def swap(self, new: Rewritten) -> int:
        """Make the replacement the journal; return by how much offsets from `covered` on have moved.

        The new name is durable after the next `sync`.
        """
        shift = new.end - new.covered
        try:
            if new.cuts != self._cuts:
                raise OSError(errno.ESTALE, "it was cut while it was rewritten", self.path)
            place = new.carried + shift
            reached = self._disk.copy(self._descriptor, new.carried, self.end, new.descriptor, place)
            self._disk.replace(self._temporary, self.path)
        except BaseException:
            self.discard(new.descriptor)
            raise
        self.close()
        self._descriptor, self.end, self._ragged, self._renamed = new.descriptor, reached + shift, False, True
        return shift


def is_whole(extent: Extent, payload: bytes) -> bool:
    """Tell whether bytes read back can be the lines that were written: others may cut or empty the file."""
    start = ALERT_START if extent.alert else b"%b%d," % (ENTRY_START, extent.first)
    return len(payload) == extent.size and payload.startswith(start) and payload.endswith(b"\n")


def record_of(extent: Extent, crc32: int) -> Record:
    """Return the record that closes an extent's batch when it is written anew."""
    return Record(
        first=extent.first,
        last=extent.last,
        bytes=extent.size,
        crc32=crc32,
        source=extent.source,
        at=extent.at,
        kind=extent.kind,
    )
