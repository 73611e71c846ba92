"""An end is named by its cause, reads well, and survives the way to the next agent."""

from typing import Any

import pytest

from orionagent.scripts.endings import Ending, Exit, judge_exit, judge_failed_start, read_ending

AT = "2026-01-01T00:00:00.000Z"

EXITS = [
    # exit, over our limit, killed by the kernel for memory; text, cause, code, signal, clean
    (Exit(code=0), False, False, "exited with 0", "exit", 0, None, True),
    (Exit(code=3), False, False, "exited with 3", "exit", 3, None, False),
    (Exit(signal=15), False, False, "killed by SIGTERM", "signal", None, "SIGTERM", False),
    (
        Exit(signal=6, core_dumped=True),
        False,
        False,
        "killed by SIGABRT (core dumped)",
        "signal",
        None,
        "SIGABRT",
        False,
    ),
    (Exit(signal=250), False, False, "killed by SIG250", "signal", None, "SIG250", False),
    (Exit(), False, False, "ended with unknown status", "unknown", None, None, False),
    (Exit(signal=15), True, False, "went over its memory limit", "memory-limit", None, "SIGTERM", False),
    (Exit(code=0), True, False, "went over its memory limit", "memory-limit", 0, None, False),
    (Exit(signal=9), True, True, "went over its memory limit", "memory-limit", None, "SIGKILL", False),
    (Exit(signal=9), False, True, "killed by SIGKILL (out of memory)", "oom-kill", None, "SIGKILL", False),
    (Exit(code=137), False, True, "exited with 137 (out of memory)", "oom-kill", 137, None, False),
]


@pytest.mark.parametrize(("found", "over", "oom", "text", "cause", "code", "signal", "clean"), EXITS)
def test_an_exit_is_told_by_its_cause(
    found: Exit, over: bool, oom: bool, text: str, cause: str, code: int | None, signal: str | None, clean: bool
) -> None:
    ending = judge_exit(found, by_shell=False, over_memory=over, oom_killed=oom, ran_ms=7, at=AT)
    assert (ending.text, ending.cause, ending.code, ending.signal) == (text, cause, code, signal)
    assert (ending.is_clean, ending.core_dumped, ending.ran_ms, ending.at) == (clean, found.core_dumped, 7, AT)


@pytest.mark.parametrize(
    ("found", "oom", "text", "cause", "code", "signal"),
    [
        (Exit(code=137), False, "killed by SIGKILL behind its shell", "signal", None, "SIGKILL"),
        (Exit(code=139), False, "killed by SIGSEGV behind its shell", "signal", None, "SIGSEGV"),
        (Exit(code=137), True, "killed by SIGKILL behind its shell (out of memory)", "oom-kill", None, "SIGKILL"),
        (Exit(signal=15), False, "killed by SIGTERM", "signal", None, "SIGTERM"),
        (Exit(code=127), False, "exited with 127", "exit", 127, None),
        (Exit(code=128), False, "exited with 128", "exit", 128, None),
        (Exit(code=255), False, "exited with 255", "exit", 255, None),
        (Exit(code=0), False, "exited with 0", "exit", 0, None),
        (Exit(), False, "ended with unknown status", "unknown", None, None),
    ],
)
def test_a_shell_s_status_is_the_signal_that_ended_the_application_behind_it(
    found: Exit, oom: bool, text: str, cause: str, code: int | None, signal: str | None
) -> None:
    ending = judge_exit(found, by_shell=True, over_memory=False, oom_killed=oom, ran_ms=7, at=AT)
    assert (ending.text, ending.cause, ending.code, ending.signal) == (text, cause, code, signal)


@pytest.mark.parametrize(
    ("found", "killed"),
    [(Exit(signal=9), True), (Exit(code=137), True), (Exit(signal=15), False), (Exit(code=9), False), (Exit(), False)],
)
def test_only_sigkill_of_the_process_or_behind_its_shell_looks_killed(found: Exit, killed: bool) -> None:
    assert found.looks_killed is killed


@pytest.mark.parametrize(
    "ending",
    [
        judge_exit(Exit(code=3), by_shell=False, over_memory=False, oom_killed=False, ran_ms=0, at=AT),
        judge_exit(Exit(signal=9), by_shell=False, over_memory=False, oom_killed=False, ran_ms=12, at=AT),
        judge_exit(Exit(), by_shell=False, over_memory=False, oom_killed=False, ran_ms=12, at=AT),
    ],
)
def test_the_next_agent_reads_what_this_one_noted(ending: Ending) -> None:
    assert read_ending(ending.to_dict()) == ending


def test_a_start_that_failed_ran_for_no_time_at_all() -> None:
    ending = judge_failed_start("cannot run app: no such folder", AT)
    assert (ending.cause, ending.is_clean) == ("spawn", False)
    assert ending.to_dict() == {"text": "cannot run app: no such folder", "code": None, "signal": None, "at": AT}


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        (None, None),
        ({}, Ending(text="", cause="unknown", at="")),
        ({"text": 3, "code": "odd", "fromTomorrow": [1]}, Ending(text="", cause="unknown", at="")),
        ({"text": "left", "code": 4, "at": AT}, Ending(text="left", cause="exit", at=AT, code=4)),
    ],
)
def test_what_another_version_noted_is_read_as_far_as_it_goes(
    noted: dict[str, Any] | None, expected: Ending | None
) -> None:
    assert read_ending(noted) == expected
