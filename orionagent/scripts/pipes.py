"""Owns `Pipes`: the two output pipes of one script, from the first run to the script's removal.

Knows nothing of the processes at the other end, nor of where the lines go.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from orionagent.config import ScriptConfig
from orionagent.errors import SpawnError
from orionagent.scripts.edges import Edges
from orionagent.scripts.handover import Descriptors
from orionagent.scripts.lines import LineSplitter
from orionagent.scripts.pump import PipeFiles, Pump, Scratch
from orionagent.scripts.redact import Redactor
from orionagent.tasks import TaskFailed, TaskGroup
from orionagent.wire import Batch, Stream

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
LAST_LINES = 20
DRAIN_S = 0.2


class Plumbing(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipes of all scripts share.

    `folder` holds the named pipes; `emit` takes lines and returns once they may leave their pipe; `offsets` says
    what of which pipe the buffer holds already.
    """

    folder: str
    emit: Callable[[Batch], object]
    offsets: Mapping[str, int]
    edges: Edges
    scratch: Scratch
    redactor: Redactor
    descriptors: Descriptors
    on_failure: Callable[[TaskFailed], None] | None = None


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How the bytes of a script are to be understood."""

    source: str
    stderr_level: str
    multiline: bool


def reading_of(config: ScriptConfig) -> Reading:
    """Return what a definition says of its lines."""
    return Reading(source=config.source or config.name, stderr_level=config.stderrLevel, multiline=config.multiline)


class Pipes:
    """Standard output and error of one script. Sole owner of their pumps and of the last lines."""

    def __init__(self, script: str, plumbing: Plumbing) -> None:
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._script = script
        self._plumbing = plumbing
        self._pumps: dict[Stream, Pump] = {}
        self._reading: Reading | None = None
        self._tasks = TaskGroup(f"pumps of {script}", plumbing.on_failure)

    def __repr__(self) -> str:
        return f"Pipes({self._script!r}, {list(self._pumps.values())})"

    def open(self, reading: Reading) -> None:
        """Open the pipes that are not open yet and move their lines; lines are understood by `reading` from now on.

        Raises:
            SpawnError: the runtime folder does not take them.
        """
        if reading != self._reading:
            self.close()
            self._reading = reading
        for stream in STREAMS:
            if stream not in self._pumps:
                self._pumps[stream] = self._open_pump(stream, reading)

    def _open_pump(self, stream: Stream, reading: Reading) -> Pump:
        plumbing = self._plumbing
        pipe = f"{self._script}:{stream}"
        known = plumbing.offsets.get(pipe, 0)
        files = PipeFiles(plumbing.folder, self._script, stream)
        reader, position = files.open(known)
        kept = plumbing.descriptors.take(f"{self._script}.{stream}")
        if kept is not None:
            os.close(reader)
            reader = kept
            os.set_blocking(reader, False)
        splitter = LineSplitter(
            reading.source,
            stream,
            stderr_level=reading.stderr_level,  # type: ignore[arg-type]
            multiline=reading.multiline,
            redactor=plumbing.redactor,
            offset=max(known, os.fstat(position).st_size),
        )
        pump = Pump(
            pipe,
            files,
            splitter,
            plumbing.emit,
            edges=plumbing.edges,
            scratch=plumbing.scratch,
            reader=reader,
            position=position,
            buffered_offset=known,
            last_lines=self.last_lines,
        )
        plumbing.descriptors.keep(f"{self._script}.{stream}", reader)
        self._tasks.spawn(f"pump:{pipe}", pump.run)
        return pump

    def open_writers(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the ends for a child that runs as this user (the caller closes them); `open` comes first.

        Raises:
            SpawnError: a pipe cannot be opened, or not be given to the user.
        """
        writers: list[int] = []
        try:
            for stream in STREAMS:
                writers.append(self._pumps[stream].files.open_writer(uid, gid))
        except SpawnError:
            for fd in writers:
                os.close(fd)
            raise
        return writers[0], writers[1]

    def drain(self) -> None:
        """Move what is in the pipes now, unfinished lines too where no writer is left."""
        for pump in self._pumps.values():
            pump.drain(DRAIN_S)

    def stop(self) -> None:
        """Stop moving lines and leave the descriptors open, for the next image of this process."""
        self._tasks.stop()

    def close(self) -> None:
        """Stop moving lines; what is in the pipes stays there."""
        self.stop()
        for pump in self._pumps.values():
            pump.close()
        self._pumps.clear()

    def shut(self) -> None:
        """Close them for good, no run writes into them any more; no next agent shall look for them."""
        self.close()
        for stream in STREAMS:
            self._plumbing.descriptors.forget(f"{self._script}.{stream}")

    def remove(self) -> None:
        """Shut them and delete what is left of them on the disk."""
        self.shut()
        for stream in STREAMS:
            PipeFiles(self._plumbing.folder, self._script, stream).remove()
