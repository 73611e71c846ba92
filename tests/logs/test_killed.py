"""A kill between any two system calls, or in the middle of one, loses nothing and repeats nothing unmarked."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_every_line_arrives_once_and_in_order_wherever_the_agent_is_killed(root: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.logs.killed", str(root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert int(outcome.stdout) > 200
