"""Nothing lost, nothing twice, nothing out of order: agent and backend are killed and faulted at random."""

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.daemon import Daemon
from tests.faults.figures import note
from tests.faults.harness import Campaign, Outcome

ROOMY = {"bufferMaxEntries": 400_000, "bufferMaxBytes": 256 << 20}
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "200"))


def run(daemon: Daemon, root: Path, what: str, rounds: int, rate: int, **config: Any) -> Outcome:
    """Play a campaign; note and return its outcome. SOAK_SEED repeats the draws of one that failed."""
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    with contextlib.closing(Campaign(daemon, root, seed)) as campaign:
        try:
            campaign.start(rate=rate, **config)
            campaign.play(rounds)
            outcome = campaign.finish()
        except BaseException:
            print(f"SOAK_SEED={seed}", campaign.notes, campaign.outcome(), daemon.log(), sep="\n")
            raise
    note(what, outcome, f"{len(outcome.gaps)} gaps", f"seed {seed}")
    return outcome


def assert_nothing_wrong(outcome: Outcome) -> None:
    assert (outcome.twice, outcome.late, outcome.remarks) == (0, 0, [])
    assert outcome.reported == outcome.counted


def test_a_dozen_rounds_of_kills_and_faults_lose_nothing(daemon: Daemon, root: Path) -> None:
    outcome = run(daemon, root, "kills and faults, 400,000 entries", 12, 1000, **ROOMY)
    assert_nothing_wrong(outcome)
    assert (outcome.lost, outcome.reported) == (0, 0)


@pytest.mark.soak
def test_two_hundred_rounds_of_kills_and_faults_lose_nothing(daemon: Daemon, root: Path) -> None:
    outcome = run(daemon, root, "kills and faults, 400,000 entries", ROUNDS, 2000, **ROOMY)
    assert_nothing_wrong(outcome)
    assert (outcome.lost, outcome.reported) == (0, 0)


@pytest.mark.soak
def test_with_a_default_buffer_every_gap_of_two_hundred_rounds_is_reported(daemon: Daemon, root: Path) -> None:
    outcome = run(daemon, root, "kills and faults, default 10,000 entries", ROUNDS, 2500)
    assert_nothing_wrong(outcome)
    assert outcome.lost > 0, "nothing was tried: the absences are to overflow it"
    assert outcome.unexplained == 0
