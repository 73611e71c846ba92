"""What trees use is measured between readings; a limit is watched from the moment it is given."""

import sys

import pytest

from orionagent.scripts.tree import CLOCK_TICKS
from orionagent.scripts.usage import CpuReading, first_reading, next_reading
from tests.scripts.house import House, wait_for

RUN = (17, 5 * CLOCK_TICKS)  # began five seconds after boot


def reading(at_s: float, ticks: int, percent: float | None = None) -> CpuReading:
    return CpuReading(run=RUN, at_s=at_s, ticks=ticks, percent=percent)


@pytest.mark.parametrize(
    ("before", "now_s", "ticks", "after"),
    [
        (first_reading(*RUN), 7.0, CLOCK_TICKS, reading(7.0, CLOCK_TICKS, 50.0)),
        (first_reading(*RUN), 5.2, CLOCK_TICKS, first_reading(*RUN)),  # ticks are coarse: too early to tell
        (reading(8.0, 0), 10.0, CLOCK_TICKS, reading(10.0, CLOCK_TICKS, 50.0)),
        (reading(8.0, 0), 10.0, 4 * CLOCK_TICKS, reading(10.0, 4 * CLOCK_TICKS, 200.0)),
        (reading(8.0, 70, 3.0), 10.0, 70, reading(10.0, 70, 0.0)),
        (reading(8.0, 70, 3.0), 10.0, 69, reading(10.0, 69)),  # a member has left with what it used
        (reading(10.0, 70, 3.0), 10.1, 80, reading(10.0, 70, 3.0)),
    ],
)
def test_the_share_is_what_was_used_between_two_readings(
    before: CpuReading, now_s: float, ticks: int, after: CpuReading
) -> None:
    assert next_reading(before, now_s, ticks) == after


def test_a_busy_script_has_a_share_at_the_first_look_and_what_ended_children_used_counts(house: House) -> None:
    busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    house.add("busy", f"while :; do sh -c '{busy}'; done")
    wait_for(lambda: (house.row("busy")["cpuPercent"] or 0) > 5, "a share")
    pid = house.row("busy")["pid"]
    house.supervisor.update("busy", {"command": "sleep 900"})
    assert house.row("busy")["pid"] != pid
    wait_for(lambda: (house.row("busy")["cpuPercent"] or 100) < 5 or house.row("busy")["cpuPercent"] == 0, "none")


def test_a_limit_that_a_stopped_script_is_given_holds_once_it_runs(house: House) -> None:
    code = "import time; x = bytearray(80 << 20); time.sleep(900)"
    house.add("late", f'{sys.executable} -c "{code}"', enabled=False, autoRestart=False)
    house.supervisor.update("late", {"maxMemoryMb": 40})
    house.supervisor.start("late")
    assert house.reach("late", "crashed")["lastExit"]["text"] == "went over its memory limit"
