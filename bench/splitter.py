"""Owns the measure of the line splitter alone: nanoseconds a line, beside what decoding and splitting cost.

Knows nothing of daemons.
"""

import time
from collections.abc import Callable

from orionagent.scripts.lines import LineSplitter

LINES = 2048
REPEATS = 30
WORDS = ("INFO ", "INFO ", "DEBUG", "WARN ", "ERROR")


def chunk(make: Callable[[int], str]) -> bytes:
    """Return a chunk of lines of 119 characters at least."""
    return b"".join((make(index).ljust(119, ".") + "\n").encode() for index in range(LINES))


CASES = {
    "plain": chunk(lambda i: f"the quick brown fox {i:05d} "),
    "time stamp and level, same ms": chunk(lambda i: f"2026-01-01T00:00:00.123Z {WORDS[i % 5]} web {i:09d} "),
    "time stamp and level, all differ": chunk(lambda i: f"2026-01-01T00:00:00.{i:06d}Z {WORDS[i % 5]} web {i:09d} "),
    "level word first": chunk(lambda i: f"{WORDS[i % 5]} something happened {i} "),
    "JSON": chunk(lambda i: f'{{"level":30,"time":{i},"pid":1,"msg":"request completed","url":"/api/v1/orders/{i}"}}'),
    "indented": chunk(lambda i: f"    the quick brown fox {i:05d} "),
}


def best_ns(act: Callable[[], object]) -> float:
    """Return the fastest of some repetitions, in ns a line."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter_ns()
        act()
        best = min(best, time.perf_counter_ns() - started)
    return best / LINES


def run() -> None:
    """Print the table."""
    plain = CASES["plain"]
    floor = best_ns(lambda: plain[:-1].decode("utf-8", "replace").split("\n"))
    print("\n### Line splitter\n\n| lines | ns a line | to decode and split |\n|---|---|---|")
    print(f"| (decode and split only) | {floor:.0f} | 1.00 |")
    for name, data in CASES.items():
        lines = LineSplitter("web", "stdout")
        taken = best_ns(lambda data=data, lines=lines: lines.feed(data, 0.0, "now"))  # type: ignore[misc]
        print(f"| {name} | {taken:.0f} | {taken / floor:.2f} |")
