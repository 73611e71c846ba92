"""Owns what is shown of a script: its row, its full view, its part of a heartbeat.

Knows nothing of how the figures came about, and changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from orionagent.scripts.lifecycle import Phase
from orionagent.scripts.runner import Runner
from orionagent.scripts.tree import count_descriptors, read_command
from orionagent.scripts.usage import MIB, Usage
from orionagent.wire import ScriptReport


def make_row(runner: Runner, usage: Mapping[str, Usage]) -> dict[str, Any]:
    """Return what `status` and `script list` show."""
    used = usage.get(runner.name, Usage())
    note = runner.runs.note
    if runner.life.phase is Phase.STOPPED and runner.life.tree and used.pids:
        note = f"{len(used.pids)} processes left"
    return {
        "name": runner.name,
        "source": runner.source,
        "phase": str(runner.life.phase),
        "state": runner.state,
        "pid": runner.pid,
        "uptimeSeconds": _rounded(runner.uptime_s),
        "restarts": runner.life.restarts,
        "crashesInARow": runner.life.crashes,
        "cpuPercent": used.cpu_percent,
        "memoryMb": used.memory_mb,
        "nextRestartSeconds": _rounded(runner.next_start_in_s),
        "lastExit": None if runner.runs.last is None else runner.runs.last.to_dict(),
        "note": note,
        "enabled": runner.config.enabled,
    }


def make_view(runner: Runner, usage: Mapping[str, Usage]) -> dict[str, Any]:
    """Return the row, the definition, the process tree and the last lines; reads /proc."""
    members = [] if runner.process is None else runner.process.members()
    tree = [
        {
            "pid": stat.pid,
            "ppid": stat.ppid,
            "command": read_command(stat.pid),
            "memoryMb": round(stat.rss_bytes / MIB, 1),
            "fds": count_descriptors(stat.pid),
        }
        for stat in members
    ]
    return {
        **make_row(runner, usage),
        "definition": msgspec.to_builtins(runner.config),
        "tree": tree,
        "lastLines": list(runner.runs.pipes.last_lines),
    }


def make_report(runner: Runner, usage: Mapping[str, Usage]) -> ScriptReport:
    """Return what a heartbeat says of the script."""
    used = usage.get(runner.name, Usage())
    return ScriptReport(
        name=runner.name,
        source=runner.source,
        state=runner.state,  # type: ignore[arg-type]
        pid=runner.pid,
        uptimeSeconds=_rounded(runner.uptime_s),
        restarts=runner.life.restarts,
        cpuPercent=used.cpu_percent,
        memoryMb=used.memory_mb,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
