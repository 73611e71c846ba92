"""Nothing lost, nothing twice, nothing out of order: agent and backend are killed and faulted at random."""

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Daemon
from tests.faults.harness import Campaign, Outcome

ROOMY = {"bufferMaxEntries": 400_000, "bufferMaxBytes": 256 << 20}
SMALL = {"bufferMaxEntries": 1_500}
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "200"))


def choose_seed() -> int:
    """Return a seed, printed so that a failure can be looked at again with SOAK_SEED."""
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    print(f"\nSOAK_SEED={seed}")
    return seed


def run(daemon: Daemon, root: Path, rounds: int, rate: int, **config: Any) -> Outcome:
    """Play a campaign; print and return its outcome."""
    with contextlib.closing(Campaign(daemon, root, choose_seed())) as campaign:
        try:
            campaign.start(rate=rate, **config)
            campaign.play(rounds)
            outcome = campaign.finish()
        except BaseException:
            print(campaign.notes, campaign.outcome(), daemon.log(), sep="\n")
            raise
    print(outcome)
    if outcome.gaps:
        print("  gaps", outcome.gaps[:20])
    return outcome


def assert_nothing_wrong(outcome: Outcome) -> None:
    assert (outcome.twice, outcome.late, outcome.remarks) == (0, 0, [])
    assert outcome.reported == outcome.counted


def test_a_dozen_rounds_of_kills_and_faults_lose_nothing(daemon: Daemon, root: Path) -> None:
    outcome = run(daemon, root, 12, 1000, **ROOMY)
    assert_nothing_wrong(outcome)
    assert (outcome.lost, outcome.reported) == (0, 0)


@pytest.mark.soak
def test_two_hundred_rounds_of_kills_and_faults_lose_nothing(daemon: Daemon, root: Path) -> None:
    outcome = run(daemon, root, ROUNDS, 2000, **ROOMY)
    assert_nothing_wrong(outcome)
    assert (outcome.lost, outcome.reported) == (0, 0)


@pytest.mark.soak
def test_with_a_small_buffer_every_gap_of_two_hundred_rounds_is_reported(daemon: Daemon, root: Path) -> None:
    outcome = run(daemon, root, ROUNDS, 2000, **SMALL)
    assert_nothing_wrong(outcome)
    assert outcome.unexplained == 0
