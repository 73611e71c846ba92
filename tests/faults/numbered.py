"""An application for tests: numbers its lines on both streams and says how far it got and how long it was held up.

Usage: numbered.py PROGRESS RATE COUNT SEED. `RATE` lines a second on each stream (0: as fast as it can); `COUNT`
lines on each stream, 0: until SIGUSR1. With a `SEED` above 0 lines have random lengths and are cut up at random by
the write(2) calls, with 0 whole blocks of short lines go to stdout alone. PROGRESS holds the numbers of the last
complete line on stdout and on stderr and whether these are the last; PROGRESS.held one line (monotonic seconds,
seconds taken) for every write that took 10 ms or more. It lives until it is killed.
"""

import os
import random
import signal
import sys
import time

CHUNK_S = 0.005
HELD_S = 0.01


def write(fd: int, block: bytes, held: int) -> None:
    """Write all of it; note when that took long."""
    view = memoryview(block)
    while view:
        before = time.monotonic()
        view = view[os.write(fd, view) :]
        after = time.monotonic()
        if after - before >= HELD_S:
            os.write(held, b"%.3f %.3f\n" % (after, after - before))


def main() -> None:
    path, rate, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    ended: list[int] = []
    signal.signal(signal.SIGUSR1, lambda *_: ended.append(1))
    told = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    held = os.open(f"{path}.held", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    draw = random.Random(seed)
    step = max(1, int(rate * CHUNK_S)) if rate else 500
    started = time.monotonic()
    number = 0
    while not ended and (not count or number < count):
        last = min(number + step, count) if count else number + step
        numbers = range(number + 1, last + 1)
        if seed:
            for fd, name in ((1, b"out"), (2, b"err")):
                lengths = [draw.choice((0, 10, 100)) if draw.random() < 0.999 else 9000 for _ in numbers]
                lines = (b"%b %d %b" % (name, n, b"x" * size) for n, size in zip(numbers, lengths, strict=True))
                block = b"\n".join(lines) + b"\n"
                cut = draw.randrange(len(block))
                write(fd, block[:cut], held)
                write(fd, block[cut:], held)
        else:
            write(1, b"".join([b"out %d\n" % n for n in numbers]), held)
        number = last
        os.pwrite(told, b"%012d %012d 0" % (number, number if seed else 0), 0)
        if rate:
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
    os.pwrite(told, b"%012d %012d 1" % (number, number if seed else 0), 0)
    while True:
        signal.pause()


main()
