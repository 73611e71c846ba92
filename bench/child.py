"""Owns the program that the supervised child of a benchmark runs: it writes marked lines on SIGUSR1.

Knows nothing of who reads them. Started as `python3 -I -S child.py MODE FOLDER ARGUMENTS`.

    burst N        N lines of 120 bytes in blocks of 64 KiB, as fast as the reader takes them
    rate R S       R lines a second for S seconds, one write each, a millisecond's worth at a time
    quiet          nothing

FOLDER/ready holds the pid once it waits, FOLDER/done the times (ns) of the first and the last write.
"""

import os
import signal
import sys
import time

LINE_BYTES = 120
BLOCK_LINES = 546
LEVELS = ("INFO ", "INFO ", "DEBUG", "INFO ", "WARN ", "INFO ", "INFO ", "ERROR")


def make_line(number: int, now_ns: int) -> bytes:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns // 10**9))
    head = f"{stamp}.{now_ns // 10**6 % 1000:03d}Z {LEVELS[number % 8]} web mark={number:09d} at={now_ns}"
    return f"{head} GET /api/v1/orders/{number % 99999:05d} status=200".ljust(LINE_BYTES - 1, ".").encode() + b"\n"


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def burst(count: int) -> None:
    while count > 0:
        now_ns = time.time_ns()
        block = b"".join([make_line(number, now_ns) for number in range(8)])
        # 8 different lines, repeated: writing must cost next to nothing.
        lines = min(count, BLOCK_LINES)
        write_all((block * (lines // 8 + 1))[: lines * LINE_BYTES])
        count -= lines


def rate(per_second: int, seconds: int) -> None:
    started = time.monotonic()
    written = 0
    while written < per_second * seconds:
        due = min(int((time.monotonic() - started) * per_second), per_second * seconds)
        for number in range(written, due):
            write_all(make_line(number, time.time_ns()))
        written = max(written, due)
        time.sleep(0.001)


def main() -> None:
    mode, folder, *arguments = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    with open(f"{folder}/ready", "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    if mode == "quiet":
        signal.pause()
    signal.sigwait({signal.SIGUSR1})
    started = time.time_ns()
    {"burst": burst, "rate": rate}[mode](*(int(argument) for argument in arguments))
    with open(f"{folder}/done.new", "w", encoding="ascii") as file:
        file.write(f"{started} {time.time_ns()}\n")
    os.rename(f"{folder}/done.new", f"{folder}/done")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
