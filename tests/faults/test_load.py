"""What delivery promises under load, measured against the real daemon; each prints its figures."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.end_to_end.daemon import Daemon, wait_until
from tests.faults.harness import LOGS, Campaign, Outcome, most_held_s
from tests.faults.test_delivery import ROOMY

pytestmark = pytest.mark.soak

RATE = 5_000
ENDS_S = 300.0
ONE_REQUEST = 5_000


@pytest.fixture
def campaign(daemon: Daemon, root: Path) -> Iterator[Campaign]:
    with contextlib.closing(Campaign(daemon, root, 0)) as found:
        yield found


def show(what: str, outcome: Outcome, *more: str) -> None:
    """Print the figures of one measure."""
    print(f"\n{what}", f"  {outcome}".replace("rounds 0: ", ""), *(f"  {line}" for line in more), sep="\n")


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
    show("outage of 40 s, 400,000 entries", outcome, f"agent's peak {campaign.memory_mb('VmHWM'):.1f} MiB")
    assert_reported_exactly(outcome)
    assert (outcome.lost, outcome.reported) == (0, 0)


def test_a_default_buffer_keeps_the_newest_of_an_outage_and_reports_the_rest(campaign: Campaign) -> None:
    campaign.start(rate=RATE, count=120 * RATE, ragged=False)
    written = have_outage(campaign)
    outcome = campaign.await_outcome(ENDS_S)
    show("outage of 40 s, default buffer", outcome, f"gaps {outcome.gaps}, written at its end {written}")
    assert_reported_exactly(outcome)
    ((_, _, last),) = outcome.gaps
    assert last >= written - 10_000


def test_two_million_lines_at_full_speed_lose_nothing_in_little_memory(campaign: Campaign) -> None:
    campaign.start(rate=0, count=2_000_000, ragged=False)
    outcome = campaign.await_outcome(ENDS_S)
    peak = campaign.memory_mb("VmHWM")
    show("2 million lines at full speed", outcome, f"agent's peak {peak:.1f} MiB")
    assert_reported_exactly(outcome)
    assert outcome.lost == 0
    assert peak < 80


@pytest.mark.parametrize("rate", [RATE, 8 * RATE])
def test_a_backend_that_takes_three_seconds_never_holds_an_application_up_for_long(
    campaign: Campaign, rate: int
) -> None:
    campaign.backend.fail("delay", path=LOGS, times=0, seconds=3.0)
    campaign.start(rate=rate, count=70 * rate, ragged=False)
    wait_until(lambda: campaign.progress()[2], "the last line", ENDS_S)
    held = most_held_s(campaign.held())
    campaign.backend.clear()
    outcome = campaign.await_outcome(ENDS_S)
    show(
        f"a backend that answers after 3 s, {rate} lines a second",
        outcome,
        f"held up at most {held:.2f} s in any minute",
    )
    assert_reported_exactly(outcome)
    assert held <= 5.5  # 5 s and what a busy machine adds to each write


def test_a_full_buffer_streams_at_start_up_and_while_it_drains(campaign: Campaign, daemon: Daemon) -> None:
    count = 399_000
    campaign.backend.refuse()
    campaign.start(rate=0, count=count, ragged=False, **ROOMY)
    wait_until(lambda: daemon.call("status")["buffer"]["entries"] >= count, "a full buffer", ENDS_S)
    daemon.kill()
    daemon.start()
    started = campaign.memory_mb()
    campaign.backend.listen()
    outcome = campaign.await_outcome(ENDS_S)
    peak = campaign.memory_mb("VmHWM")
    figures = f"idle {campaign.idle_mb:.1f} MiB, started with {count} entries {started:.1f} MiB, peak {peak:.1f} MiB"
    show("start-up and drain of a full buffer", outcome, figures)
    assert_reported_exactly(outcome)
    assert outcome.lost == 0
    assert peak - campaign.idle_mb < 30
