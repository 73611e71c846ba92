"""An application for tests: writes numbered lines at a pace, and tells a file how far it got.

Usage: writer.py RATE COUNT PROGRESS. `RATE` lines a second (0: as fast as it can), `COUNT` lines in all. Only complete
lines count; the file holds the number of the last one whose write(2) returned.
"""

import os
import signal
import sys
import time

CHUNK_S = 0.005


def main() -> None:
    rate, count, progress = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    started = time.monotonic()
    step = max(1, int(rate * CHUNK_S)) if rate else 500
    told = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    number = 0
    while number < count:
        last = min(number + step, count)
        block = memoryview(b"".join(b"line %09d\n" % n for n in range(number + 1, last + 1)))
        while block:
            block = block[os.write(1, block) :]
        number = last
        os.pwrite(told, b"%09d" % number, 0)
        if rate:
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
    time.sleep(1000)


main()
