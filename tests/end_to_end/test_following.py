"""`orion logs --follow` beside the real daemon."""

import os
import subprocess

import gevent

from tests.end_to_end.daemon import DEADLINE_S, ORION, Daemon


def test_a_level_is_followed_from_its_last_lines_on_without_gap_or_repetition(daemon: Daemon) -> None:
    daemon.configure({})
    daemon.start()
    for number in range(6):
        daemon.call("log", level="error" if number % 2 else "info", message=f"past {number}")
    argv = [ORION, "logs", "--follow", "--level=error", "--lines=2", "cli"]
    with subprocess.Popen(argv, env=daemon.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            shown = [next_line(process.stdout.fileno()) for _ in range(2)]
            for number in range(4):
                daemon.call("log", level="info" if number % 2 else "error", message=f"new {number}")
            shown += [next_line(process.stdout.fileno()) for _ in range(2)]
        finally:
            process.kill()
    assert shown == ["past 3", "past 5", "new 0", "new 2"]


def next_line(descriptor: int) -> str:
    """Return the message of the next line: its last two words."""
    line = b""
    with gevent.Timeout(DEADLINE_S):
        while not line.endswith(b"\n"):
            line += gevent.get_hub().threadpool.apply(os.read, (descriptor, 1))
    return " ".join(line.decode().split()[-2:])
