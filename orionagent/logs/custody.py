"""Owns where the bytes of waiting entries are: in the journal, or in memory while the disk refuses them.

Knows nothing of limits, of which entries wait, or of delivery.
"""

import logging
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from orionagent.logs.extents import Extent
from orionagent.logs.index import ExtentQueue, Snapshot
from orionagent.logs.journal import Control, Header, Mark, Range, Record, encode_control
from orionagent.logs.journalfile import JournalFile, Rewritten, is_whole, record_of
from orionagent.logs.loading import Loaded, load

log = logging.getLogger(__name__)

T = TypeVar("T")

COMPACT_BYTES = 16 << 20
"""Delivered bytes that may lie in the journal before it is rewritten without them."""

DISK_RETRY_S = 5.0
COMPACT_RETRY_S = 60.0


def run_here(function: Callable[[], T]) -> T:
    """Call it in this thread; an owner with greenlets passes a runner that uses another one."""
    return function()


class Custody:
    """Keeps batches and marks durable as far as the disk allows. Sole writer of the journal file.

    Nothing here raises for the disk's sake. While it refuses, `refused` says why, payloads stay in memory
    under an instance that the journal does not know, and it is tried anew every 5 s.
    `index` has every extent that waits; `adopt` takes what a journal holds that turned up late; `header`
    returns the counters to write into a header.
    """

    def __init__(
        self,
        file: JournalFile,
        *,
        boot_id: str,
        index: ExtentQueue,
        adopt: Callable[[Loaded], None],
        header: Callable[[], Header],
        monotonic: Callable[[], float],
        new_instance: Callable[[], str],
    ) -> None:
        self._file = file
        self._boot_id = boot_id
        self._index = index
        self._adopt = adopt
        self._header = header
        self._monotonic = monotonic
        self._new_instance = new_instance
        self._retry_at = 0.0
        self._unmarked: list[Range] = []
        self._compacting = False
        self._compact_at = 0.0
        self._closed = False
        self._damaged = False
        self._stump_at: int | None = None
        self.instance = new_instance()
        self.refused: OSError | None = None
        self.unsynced = False

    def open(self) -> Loaded:
        """Read the journal back. Call `settle` once its extents are among the live ones."""
        loaded = self._load()
        self.instance, self.refused = loaded.instance, loaded.refused
        return loaded

    def _load(self) -> Loaded:
        loaded = load(self._file, self._boot_id, self._new_instance())
        self._damaged, self._stump_at = loaded.damaged, loaded.stump_at
        return loaded

    def settle(self, loaded: Loaded) -> None:
        """Bring the journal into order: without damage, under the instance in force, on the disk."""
        if self.refused is not None:
            log.error("cannot write %s: %s; entries stay in memory", self._file.path, self.refused)
            return
        if loaded.damaged:
            if not self.compact() and self.refused is None:
                self._refuse(OSError("the damaged journal could not be rewritten"))
        elif self._file.end == 0 or loaded.boot_changed:
            self._append([self._header()])
        self.unsynced = True

    def close(self) -> None:
        """Write down what is in memory, if possible; sync and close. Blocks for the disk."""
        if self._closed:
            return
        self._closed = True
        self.ready(now=True)
        if self.needs_compaction:
            self.compact()
        self.sync()
        self._file.close()

    # Writing

    def put(self, extent: Extent, pieces: Sequence[bytes], record: Record) -> None:
        """Write a batch and its record by one call, or keep its bytes in memory."""
        if self.ready():
            try:
                extent.offset = self._file.append([*pieces, encode_control(record)])
            except OSError as error:
                self._refuse(error)
        extent.instance = self.instance
        if extent.offset < 0:
            extent.payload = b"".join(pieces)
            self._unmarked += [*record.ack, *record.drop]
        else:
            self.unsynced = True

    def mark(self, mark: Mark) -> None:
        """Note the end of entries; remembered until the disk takes it."""
        if not (self.ready() and self._append([mark])):
            self._unmarked += [*mark.ack, *mark.drop]

    def payload(self, extent: Extent) -> bytes | None:
        """Return an extent's lines; None when somebody else destroyed them or the disk cannot read them."""
        if extent.payload is not None:
            return extent.payload
        if extent.offset < 0:
            return None
        try:
            payload = self._file.read(extent.offset, extent.size)
        except OSError as error:
            log.error("cannot read %s: %s", self._file.path, error)
            return None
        return payload if is_whole(extent, payload) else None

    def _append(self, lines: Sequence[Control]) -> bool:
        try:
            self._file.append([encode_control(line) for line in lines])
        except OSError as error:
            self._refuse(error)
            return False
        return True

    # A disk that refuses

    def _refuse(self, error: OSError) -> None:
        """Go on in memory, under a new instance: the journal will not know these sequence numbers."""
        log.error("cannot write %s: %s; entries stay in memory", self._file.path, error)
        self.refused = error
        self._retry_at = self._monotonic() + DISK_RETRY_S
        self.instance = self._new_instance()

    def ready(self, *, now: bool = False) -> bool:
        """Tell whether the disk takes data; while it does not, try again every 5 s (or now)."""
        if self.refused is None:
            return True
        if not now and self._monotonic() < self._retry_at:
            return False
        self._retry_at = self._monotonic() + DISK_RETRY_S
        try:
            if not self._file.is_open:
                self._open_late()
            elif self._file.refused is not None:
                self._file.reopen()
            if self._stump_at is not None:
                self._file.cut(self._stump_at)
                self._stump_at = None
            self._write_gathered()
        except OSError as error:
            self.refused = error
            return False
        log.info("%s takes entries again", self._file.path)
        self.refused = None
        return True

    def _open_late(self) -> None:
        """Take up a journal that could not be opened at the start: what it holds is older than the rest."""
        loaded = self._load()
        if self._file.is_open:
            self._adopt(loaded)
        if loaded.refused is not None:
            raise loaded.refused

    def _write_gathered(self) -> None:
        gathered = self._index.in_memory()
        counters = self._header()
        before = self._file.end
        placed = []
        try:
            mark = Mark(ack=self._unmarked, dropped=counters.dropped, rejectedTotal=counters.rejectedTotal)
            self._file.append([encode_control(mark)])
            instance = None
            for extent in gathered:
                payload = extent.payload or b""
                pieces = [payload, encode_control(record_of(extent, zlib.crc32(payload)))]
                if extent.instance != instance:
                    instance = extent.instance
                    header = Header(instance=instance, bootId=self._boot_id)
                    self._file.append([encode_control(header)])
                placed.append(self._file.append(pieces))
            self._file.append([encode_control(counters)])
        except OSError:
            self._file.cut(before)
            raise
        for extent, offset in zip(gathered, placed, strict=True):
            extent.offset, extent.payload = offset, None
        self._unmarked = []
        self.unsynced = True

    def sync(self, run: Callable[[Callable[[], None]], None] = run_here) -> None:
        """Bring what is appended onto the disk, within `run`."""
        self.unsynced = False
        try:
            run(self._file.sync)
        except OSError as error:
            # After a failed sync the kernel forgets which pages were bad: write everything anew.
            log.error("cannot sync %s: %s", self._file.path, error)
            self.compact()

    # Compaction

    @property
    def needs_compaction(self) -> bool:
        """Tell whether delivered bytes dominate the journal, or damage is still in it: it would be found again."""
        if self._compacting or self.refused is not None or self._monotonic() < self._compact_at:
            return False
        if self._damaged or self._file.end <= COMPACT_BYTES:
            return self._damaged
        live = self._index.footprint_bytes
        return self._file.end - live > max(COMPACT_BYTES, live)

    def is_in_place(self) -> bool:
        """Tell whether the journal's path still names the journal; if not, `compact` puts one there."""
        return self.refused is not None or self._file.is_in_place()

    def compact(self, run: Callable[[Callable[[], Rewritten]], Rewritten] = run_here) -> bool:
        """Rewrite the journal with only what waits, within `run`; entries may be appended meanwhile.

        Returns whether it was done; where the disk has no room for the copy, the old journal stays in use.
        """
        if self._compacting or self.refused is not None:
            return False
        self._compacting = True
        try:
            snapshot = self._index.snapshot()
            header, covered = self._header(), self._file.end
            new = run(lambda: self._rewrite(snapshot, header, covered))
            if not self.ready():
                self._file.discard(new.descriptor)
                return False
            shift = self._file.swap(new)
        except OSError as error:
            log.error("cannot rewrite %s: %s", self._file.path, error)
            self._compact_at = self._monotonic() + COMPACT_RETRY_S
            return self._empty_in_place()
        finally:
            self._compacting = False
        self._index.relocate(snapshot, lambda extent: new.place(extent, shift))
        self._damaged = False
        self.unsynced = True
        return True

    def _rewrite(self, snapshot: Snapshot, header: Header, covered: int) -> Rewritten:
        new = self._file.rewrite(snapshot, header, covered)
        snapshot.relocate(new.place)
        return new

    def _empty_in_place(self) -> bool:
        """Free the space of a journal that holds nothing any more: a full disk may need just that."""
        if self._index:
            return False
        try:
            self._file.cut(0)
        except OSError as error:
            self._refuse(error)
            return False
        self._damaged = False
        return self._append([self._header()])
