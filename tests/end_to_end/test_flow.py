"""A flood loses nothing on a quick backend; a slow one holds the application up no longer than promised."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.end_to_end.daemon import REPOSITORY, Daemon, wait_until
from tests.faults.fixtures import FaultyBackend
from tests.faults.ledger import Arrival, read_records

FOLDER = REPOSITORY / "tests" / "end_to_end"


def peak_mib(daemon: Daemon) -> float:
    """Return the most resident memory the agent ever had."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def ends_with(ledger: Path, text: bytes) -> bool:
    """Tell whether a text is among what the backend took last."""
    with ledger.open("rb") as file:
        file.seek(max(os.path.getsize(ledger) - (1 << 20), 0))
        return text in file.read()


def arrived(ledger: Path) -> Iterator[str]:
    """Yield the messages that the backend took, request by request."""
    with ledger.open("rb") as file:
        for record in read_records(file.fileno(), 0):
            for entry in msgspec.msgpack.decode(record, type=Arrival).entries:
                yield entry.message


def flood(daemon: Daemon, root: Path, count: int) -> None:
    """Let a child write as fast as it can with default settings; every line must arrive, in little memory."""
    ledger = root / "ledger"
    with contextlib.closing(FaultyBackend(ledger=str(ledger))) as backend:
        daemon.configure({"token": "t", "apiUrl": backend.url})
        daemon.start()
        command = f"{sys.executable} -S {FOLDER / 'writer.py'} 0 {count} {root}/progress"
        daemon.call("script:add", name="writer", command=command, cwd="/tmp")
        wait_until(lambda: ends_with(ledger, f"line {count:09d}".encode()), "the last line has arrived", timeout_s=120)
        status, peak = daemon.call("status")["buffer"], peak_mib(daemon)
        daemon.stop()
    assert status["droppedTotal"] == 0
    assert peak < 80, "MiB"
    for number, message in enumerate(arrived(ledger), start=1):
        assert message == f"line {number:09d}"
    assert number == count
    print(f"\n{count} lines, peak RSS {peak:.0f} MiB")


def test_a_flood_arrives_whole_in_little_memory(daemon: Daemon, root: Path) -> None:
    flood(daemon, root, 300_000)
