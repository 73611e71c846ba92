"""An alert has every fact of the crash, and the same id however often it is made."""

from typing import Any

import pytest

from orionagent.scripts.alerts import make_alert
from orionagent.scripts.endings import Exit, judge_exit, judge_failed_start
from orionagent.scripts.lifecycle import SendAlert
from orionagent.wire import Alert

AT = "2026-01-01T00:00:00.000Z"
CRASH = judge_exit(
    Exit(signal=6, core_dumped=True), by_shell=False, over_memory=False, oom_killed=False, ran_ms=1234, at=AT
)
SECOND = SendAlert(2, 1999.6)


def alert_of(ending: Any = CRASH, due: SendAlert = SECOND, **changes: Any) -> Alert:
    facts: dict[str, Any] = {"hostname": "host", "script": "app", "source": "shop", "run": "17-99", "restarts": 4}
    return make_alert(ending, due, **{**facts, "last_lines": ["one", "two"], **changes})


def test_the_facts_are_all_there() -> None:
    assert alert_of() == Alert(
        id="host-app-17-99-4-2",
        timestamp=AT,
        hostname="host",
        script="app",
        source="shop",
        message="app crashed: killed by SIGABRT (core dumped); restart in 2.0 s",
        cause="signal",
        signal="SIGABRT",
        coreDumped=True,
        ranMs=1234,
        crashesInARow=2,
        willRestart=True,
        restartInMs=2000,
        lastLines=("one", "two"),
    )


@pytest.mark.parametrize(
    ("due", "end", "restarts", "in_ms"),
    [
        (SendAlert(1, None), "; no restart", False, None),
        (SendAlert(1, 0.0), "; restart in 0.0 s", True, 0),
        (SendAlert(1, 60_000.0), "; restart in 60.0 s", True, 60_000),
    ],
)
def test_it_says_whether_and_when_the_script_restarts(
    due: SendAlert, end: str, restarts: bool, in_ms: int | None
) -> None:
    alert = alert_of(due=due)
    assert alert.message.endswith(end)
    assert (alert.willRestart, alert.restartInMs) == (restarts, in_ms)


def test_a_start_that_failed_has_neither_code_nor_signal() -> None:
    alert = alert_of(judge_failed_start("cannot run app: no user 'x'", AT))
    assert (alert.cause, alert.exitCode, alert.signal, alert.ranMs) == ("spawn", None, None, None)
    assert "no user 'x'" in alert.message


@pytest.mark.parametrize("changes", [{"run": "18-99"}, {"restarts": 5}, {"script": "b"}, {"due": SendAlert(3, 0.0)}])
def test_another_crash_has_another_id_and_the_same_crash_the_same(changes: dict[str, Any]) -> None:
    assert alert_of().id == alert_of(last_lines=()).id
    assert alert_of(**changes).id != alert_of().id
