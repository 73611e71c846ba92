"""The backend goes and comes back: what was written meanwhile arrives whole and in order."""

import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.figures import say
from tests.faults.fixtures import FaultyBackend

LINES = 8000
OUTAGE_S = 30.0
HEARTBEAT_S = 30
WRITER = f"""
import time
began = time.monotonic()
for number in range(1, {LINES} + 1):
    print(number, flush=True)
    time.sleep(max(0.0, began + number * {0.9 * OUTAGE_S / LINES} - time.monotonic()))
time.sleep(1000)
"""


def test_eight_thousand_lines_written_during_an_outage_arrive_in_order(faulty: FaultyBackend, daemon: Daemon) -> None:
    daemon.configure({"token": "t", "apiUrl": faulty.url, "heartbeatInterval": 1000})
    daemon.start()
    faulty.wait_for(heartbeats=1)
    faulty.refuse()
    daemon.call("script:add", name="writer", command=f"seq 1 {LINES}", cwd="/tmp")
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] >= LINES, "all lines in the buffer")
    assert daemon.call("status")["link"]["state"] != "connected"
    faulty.listen()
    faulty.wait_for(entries=LINES, timeout_s=60)
    received = faulty.received()
    assert [int(e["message"]) for e in received.entries if e["source"] == "writer"] == list(range(1, LINES + 1))
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] == 0, "an empty buffer")
    assert daemon.call("status")["buffer"]["droppedTotal"] == 0


@pytest.mark.soak
def test_half_a_minute_without_a_backend_drains_at_the_next_retry_or_heartbeat(
    faulty: FaultyBackend, daemon: Daemon
) -> None:
    daemon.configure({"token": "t", "apiUrl": faulty.url, "heartbeatInterval": HEARTBEAT_S * 1000})
    daemon.start()
    faulty.wait_for(heartbeats=1)
    program = Path(daemon.paths.root) / "writer.py"
    program.write_text(WRITER, encoding="utf-8")
    faulty.refuse()
    refused_at = time.monotonic()
    daemon.call("script:add", name="writer", command=f"{sys.executable} {program}", cwd="/tmp")
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] >= LINES, "all lines in the buffer", 120.0)
    time.sleep(max(0.0, refused_at + OUTAGE_S - time.monotonic()))
    status = daemon.call("status")
    faulty.listen()
    listened_at = time.monotonic()
    faulty.wait_for(entries=LINES, timeout_s=120)
    waited_s = time.monotonic() - listened_at
    numbers = [int(e["message"]) for e in faulty.received().entries if e["source"] == "writer"]
    announced_s = status["link"]["nextAttemptSeconds"]
    say(
        f"outage of {listened_at - refused_at:.1f} s: {len(numbers)} of {LINES} lines, in order: "
        f"{numbers == sorted(numbers)}, all there {waited_s:.1f} s after the return; "
        f"the next retry was due in {announced_s} s"
    )
    assert numbers == list(range(1, LINES + 1))
    # Whichever comes first may be missed by a hair; the slack is for moving the lines.
    assert waited_s <= max(announced_s, HEARTBEAT_S) + OUTAGE_S / 10
