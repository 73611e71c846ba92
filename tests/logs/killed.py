"""Runs a buffer in a child that is killed at its n-th system call, for every n, and compares the outcome.

    python -m tests.logs.killed FOLDER

The child is a whole small agent: what it puts in is resumed from the buffer's own offset, as a pipe would be, and
what it sends goes into a file, once before and once after the place where an acknowledgement may get lost. Run
as a program of its own because it forks.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence

from orionagent.logs.buffer import Buffer
from orionagent.logs.disk import Disk
from tests.logs.journals import BOOT, numbered

LINES = 120
BATCH = 7


class Deadly(Disk):
    """Kills its own process at the n-th call: before it, in the middle of a write, or after it."""

    def __init__(self, at: int, moment: str) -> None:
        self._left = at
        self._moment = moment

    def _count(self, act: Callable[[], None], torn: Callable[[], None] | None = None) -> None:
        self._left -= 1
        if self._left == 0:
            if self._moment == "torn" and torn is not None:
                torn()
            elif self._moment == "after":
                act()
            os.kill(os.getpid(), signal.SIGKILL)
        act()

    def write(self, descriptor: int, pieces: Sequence[bytes], offset: int) -> None:
        whole = b"".join(pieces)
        cut = len(whole) * (self._left * 37 % 100) // 100
        self._count(
            lambda: Disk.write(self, descriptor, pieces, offset),
            lambda: Disk.write(self, descriptor, [whole[:cut]], offset) if cut else None,
        )

    def truncate(self, descriptor: int, size: int) -> None:
        self._count(lambda: Disk.truncate(self, descriptor, size))

    def sync(self, descriptor: int) -> None:
        self._count(lambda: Disk.sync(self, descriptor))

    def replace(self, source: str, target: str) -> None:
        self._count(lambda: Disk.replace(self, source, target))

    def remove(self, path: str) -> None:
        self._count(lambda: Disk.remove(self, path))

    @property
    def survived(self) -> bool:
        """Tell whether the deadly call never came."""
        return self._left > 0


def live(folder: str, disk: Deadly, *, whole: bool) -> None:
    """Go on where the buffer's offset says, and send; with `whole` until everything is sent."""
    buffer = Buffer(f"{folder}/buffer.jsonl", boot_id=BOOT, max_entries=10_000, max_bytes=1 << 20, disk=disk)
    buffer.open()
    sent = os.open(f"{folder}/sent", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    done = buffer.offsets.get("api:stdout", 0)
    turn = 0
    while done < LINES or (whole and buffer.entries):
        turn += 1
        if done < LINES:
            until = min(done + BATCH, LINES)
            buffer.append(numbered(done + 1, until, offset=until))
            done = until
        if turn % 2 == 0 or done == LINES:
            send(buffer, sent)
        if turn % 5 == 0:
            buffer.custody.compact()
    os.close(sent)
    buffer.close()


def send(buffer: Buffer, sent: int) -> None:
    """Deliver up to 11 entries: first the backend has them, then they are acknowledged."""
    claim = buffer.claim(buffer.sources(), 11, 1 << 20)
    if claim is None:
        return
    lines = b"".join(buffer.read(claim) or ())
    mark = claim.instance.encode()
    os.write(sent, b"".join(b"%b %b\n" % (mark, line) for line in lines.splitlines()))
    buffer.ack(claim)


def judge(folder: str) -> str | None:
    """Return what is wrong with everything sent, None if each line came once, in order."""
    seen: set[tuple[str, int]] = set()
    texts = []
    with open(f"{folder}/sent", encoding="utf-8") as file:
        for row in file:
            instance, _, line = row.partition(" ")
            entry = json.loads(line)
            if (instance, entry["seq"]) not in seen:
                seen.add((instance, entry["seq"]))
                texts.append(entry["message"])
    expected = [f"line {number}" for number in range(1, LINES + 1)]
    if texts == expected:
        return None
    return f"missing {sorted(set(expected) - set(texts))}, {len(texts)} of {LINES}"


def in_child(work: Callable[[], None]) -> int:
    """Run it in a forked child; return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def main() -> None:
    """Kill at every call; print how many kills there were, or what went wrong."""
    root = sys.argv[1]
    kills = 0
    for moment in ("before", "torn", "after"):
        at = 0
        killed = True
        while killed:
            at += 1
            folder = f"{root}/{moment}-{at}"
            os.mkdir(folder)
            # Killed twice: once in its first life, once while it recovers.
            status = in_child(lambda: live(folder, Deadly(at, moment), whole=True))  # noqa: B023
            killed = os.WIFSIGNALED(status)
            kills += killed
            again = in_child(lambda: live(folder, Deadly(at % 9 + 1, moment), whole=False))  # noqa: B023
            kills += os.WIFSIGNALED(again)
            last = in_child(lambda: live(folder, Deadly(1 << 30, moment), whole=True))  # noqa: B023
            wrong = judge(folder)
            if wrong is not None or last != 0:
                sys.exit(f"{folder}: {wrong}, status {last}")
    print(kills)


if __name__ == "__main__":
    main()
