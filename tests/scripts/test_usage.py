"""What trees use is measured between readings; a limit is watched from the moment it is given."""

import sys

import pytest

from orionagent.scripts.tree import CLOCK_TICKS
from orionagent.scripts.usage import cpu_percent
from tests.scripts.house import House


@pytest.mark.parametrize(
    ("before", "now_s", "ticks", "percent"),
    [
        (None, 10.0, 50, None),
        ((8.0, 0), 10.0, CLOCK_TICKS, 50.0),
        ((8.0, 0), 10.0, 4 * CLOCK_TICKS, 200.0),
        ((8.0, 70), 10.0, 70, 0.0),
        ((8.0, 70), 10.0, 69, None),  # a member has left and taken its ticks along
        ((10.0, 0), 10.0, 5, None),
    ],
)
def test_the_share_is_what_was_used_between_two_readings(
    before: tuple[float, int] | None, now_s: float, ticks: int, percent: float | None
) -> None:
    assert cpu_percent(before, now_s, ticks) == percent


def test_a_limit_that_a_stopped_script_is_given_holds_once_it_runs(house: House) -> None:
    code = "import time; x = bytearray(80 << 20); time.sleep(900)"
    house.add("late", f'{sys.executable} -c "{code}"', enabled=False, autoRestart=False)
    house.supervisor.update("late", {"maxMemoryMb": 40})
    house.supervisor.start("late")
    assert house.reach("late", "crashed")["lastExit"]["text"] == "went over its memory limit"
