"""The backend goes and comes back: what was written meanwhile arrives whole and in order."""

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.fixtures import FaultyBackend

LINES = 8000


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
