"""Owns the facts of a crash as an alert.

Pure: knows nothing of when an alert is due, nor of how it travels.
"""

from collections.abc import Sequence

from orionagent.scripts.endings import Ending
from orionagent.scripts.lifecycle import SendAlert
from orionagent.wire import Alert


def make_alert(
    ending: Ending,
    due: SendAlert,
    *,
    hostname: str,
    script: str,
    source: str,
    run: str,
    restarts: int,
    last_lines: Sequence[str],
) -> Alert:
    """Return the alert of a crash; the same crash of the same `run` always has the same id."""
    follows = "no restart" if due.restart_in_ms is None else f"restart in {due.restart_in_ms / 1000:.1f} s"
    return Alert(
        id=f"{hostname}-{script}-{run}-{restarts}-{due.crashes}",
        timestamp=ending.at,
        hostname=hostname,
        script=script,
        source=source,
        message=f"{script} crashed: {ending.text}; {follows}",
        cause=ending.cause,
        exitCode=ending.code,
        signal=ending.signal,
        coreDumped=ending.core_dumped,
        ranMs=ending.ran_ms,
        crashesInARow=due.crashes,
        willRestart=due.restart_in_ms is not None,
        restartInMs=None if due.restart_in_ms is None else round(due.restart_in_ms),
        lastLines=tuple(last_lines),
    )
