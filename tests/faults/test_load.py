"""What delivery promises under load, measured against the real daemon; each prints its figures."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import msgspec
import pytest

from tests.end_to_end.daemon import REPOSITORY, Daemon, wait_until
from tests.faults.figures import note
from tests.faults.harness import LOGS, Campaign, Outcome, most_held_s
from tests.faults.test_delivery import ROOMY

pytestmark = pytest.mark.soak

RATE = 5_000
FULL_SPEED = 0
ENDS_S = 300.0
ONE_REQUEST = 5_000


ONE_LINE_BATCHES = """
import sys
from orionagent.logs.buffer import Buffer
from orionagent.wire import Batch

buffer = Buffer(sys.argv[1], boot_id="another", max_entries=400_000, max_bytes=256 << 20)
buffer.open()
for n in range(2, int(sys.argv[2]) + 1):
    at = f"2026-01-01T{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}.000Z"
    buffer.append(Batch(source=f"s{n % 20}", stream="stdout", timestamp=at, messages=[f"out {n}"], levels="info"))
assert buffer.entries == int(sys.argv[2])
buffer.close()
"""


@pytest.fixture
def campaign(daemon: Daemon, root: Path) -> Iterator[Campaign]:
    with contextlib.closing(Campaign(daemon, root, 0)) as found:
        yield found


def assert_reported_exactly(outcome: Outcome) -> None:
    """What is missing was reported; besides, one request may have been stored and its answer cut off."""
    assert (outcome.twice, outcome.late, outcome.unexplained, outcome.remarks) == (0, 0, 0, [])
    assert outcome.reported == outcome.counted
    assert outcome.reported - outcome.lost <= ONE_REQUEST


def have_outage(campaign: Campaign) -> int:
    """Let 120 s pass, the backend down from second 20 to 60; return the line written when it came back."""
    gevent.sleep(20)
    campaign.backend.refuse()
    gevent.sleep(40)
    written = campaign.progress()[0]
    campaign.backend.listen()
    return written


def test_a_large_buffer_bridges_forty_seconds_at_five_thousand_lines_a_second(campaign: Campaign) -> None:
    campaign.start(rate=RATE, count=120 * RATE, ragged=False, **ROOMY)
    have_outage(campaign)
    outcome = campaign.await_outcome(ENDS_S)
    note("outage of 40 s, 400,000 entries", outcome, f"agent's peak {campaign.memory_mb('VmHWM'):.1f} MiB")
    assert_reported_exactly(outcome)
    assert (outcome.lost, outcome.reported) == (0, 0)


def test_a_default_buffer_keeps_the_newest_of_an_outage_and_reports_the_rest(campaign: Campaign) -> None:
    campaign.start(rate=RATE, count=120 * RATE, ragged=False)
    written = have_outage(campaign)
    outcome = campaign.await_outcome(ENDS_S)
    note("outage of 40 s, default 10,000 entries", outcome, f"gap {outcome.gaps}, line {written} when it ended")
    assert_reported_exactly(outcome)
    ((_, _, last),) = outcome.gaps
    assert last >= written - 10_000


def test_two_million_lines_at_full_speed_lose_nothing_in_little_memory(campaign: Campaign) -> None:
    campaign.start(rate=0, count=2_000_000, ragged=False)
    outcome = campaign.await_outcome(ENDS_S)
    peak = campaign.memory_mb("VmHWM")
    note("2 million lines at full speed", outcome, f"agent's peak {peak:.1f} MiB")
    assert_reported_exactly(outcome)
    assert outcome.lost == 0
    assert peak < 80


@pytest.mark.parametrize("rate", [RATE, 8 * RATE, FULL_SPEED])
def test_a_backend_that_takes_three_seconds_never_holds_an_application_up_for_long(
    campaign: Campaign, rate: int
) -> None:
    campaign.backend.fail("delay", path=LOGS, times=0, seconds=3.0)
    campaign.start(rate=rate, ragged=False)
    gevent.sleep(64)
    campaign.end_writing()
    # At full speed every write waits for the pipe: then what counts is what only a wait for room can take.
    held = most_held_s(campaign.held(), least_s=0.5 if rate == FULL_SPEED else 0.0)
    campaign.backend.clear()
    outcome = campaign.await_outcome(ENDS_S)
    wanted = "full speed" if rate == FULL_SPEED else f"{rate:,} lines/s"
    note(f"a backend that answers after 3 s, {wanted}", outcome, f"held up at most {held:.2f} s in any minute")
    assert_reported_exactly(outcome)
    assert outcome.reported == outcome.lost
    assert held <= 5.0


def fill(daemon: Daemon, count: int) -> None:
    """Write a journal as full as it gets with batches of one line each, as quiet scripts fill it over days."""
    command = [sys.executable, "-c", ONE_LINE_BATCHES, daemon.paths.buffer, str(count)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=ENDS_S)


@pytest.mark.parametrize("batches", ["as read", "of one line"])
def test_a_full_buffer_streams_at_start_up_and_while_it_drains(
    campaign: Campaign, daemon: Daemon, batches: str
) -> None:
    count = 399_000
    written = 1 if batches == "of one line" else count
    campaign.backend.refuse()
    campaign.start(rate=0, count=written, ragged=False, **ROOMY)
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] >= written, "all lines in the buffer", ENDS_S)
    daemon.kill()
    if written < count:
        fill(daemon, count)
    daemon.start()
    assert daemon.call("status")["buffer"]["entries"] == count
    started = campaign.memory_mb()
    campaign.backend.listen()
    outcome = msgspec.structs.replace(campaign.await_outcome(ENDS_S), written=count)
    peak = campaign.memory_mb("VmHWM")
    note(
        f"start-up and drain of a full buffer, batches {batches}",
        outcome,
        f"idle {campaign.idle_mb:.1f} MiB, started with {count:,} entries {started:.1f} MiB, peak {peak:.1f} MiB",
    )
    assert_reported_exactly(outcome)
    assert outcome.lost == 0
    assert campaign.account.streams["stdout"].gaps(count) == []
    assert peak - campaign.idle_mb < 30
