"""An application for tests: writes numbered lines at a rate and notes how long each write(2) held it up.

    stalled.py RATE SECONDS REPORT

`REPORT` gets, at the end, one JSON object: how many lines were written and the most seconds that writes took
within any 60 s.
"""

import json
import os
import sys
import time
from collections import deque


def main() -> None:
    """Write, then tell."""
    rate, seconds, report = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    began = time.monotonic()
    waits: deque[tuple[float, float]] = deque()
    number, worst, within = 0, 0.0, 0.0
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * rate) - number
        if due <= 0:
            time.sleep(0.005)
            continue
        due = min(due, 500)
        block = memoryview(b"".join(b"line %09d\n" % n for n in range(number + 1, number + due + 1)))
        started = time.monotonic()
        while block:
            block = block[os.write(1, block) :]
        ended = time.monotonic()
        number += due
        waits.append((ended, ended - started))
        within += ended - started
        while waits[0][0] < ended - 60:
            within -= waits.popleft()[1]
        worst = max(worst, within)
    with open(f"{report}.new", "w", encoding="ascii") as file:
        json.dump({"lines": number, "worst": worst}, file)
    os.rename(f"{report}.new", report)
    time.sleep(1000)


main()
