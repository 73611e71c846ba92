"""Owns how a script's life goes on when it is taken back from an earlier agent of this boot.

Knows nothing of pipes and inboxes: it finds the recorded process, and says what is to be done first.
"""

import os
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from orionagent.scripts.handover import ScriptRecord
from orionagent.scripts.kernel import open_pidfd, pid_of_pidfd
from orionagent.scripts.lifecycle import Action, Delay, EndTree, Event, Life, Phase, Start, TreeGone
from orionagent.scripts.tree import is_alive, read_stat


class FoundRun(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded run's main process. `pidfd` is the receiver's to close; it is readable when the process is gone."""

    pid: int
    start_ticks: int
    pidfd: int
    is_child: bool
    is_alive: bool
    is_traceable: bool


def find_run(pid: int, start_ticks: int, take_kept: Callable[[], int | None]) -> FoundRun:
    """Return the process that was recorded, never a stranger that has got its number since.

    `take_kept` gives the pidfd that outlived the agent, if there is one: it still tells of a process that ended.
    """
    stat = read_stat(pid)
    same = stat is not None and stat.start_ticks == start_ticks
    kept = take_kept()
    if kept is not None and pid_of_pidfd(kept) not in (pid, None):
        os.close(kept)  # of another run
        kept = None
    try:
        pidfd = kept if kept is not None else open_pidfd(pid) if same else None
    except ProcessLookupError:
        pidfd = None
    return FoundRun(
        pid=pid,
        start_ticks=start_ticks,
        # Without one it ended while nobody watched, and the kernel keeps no memory of it.
        pidfd=_ended_pidfd() if pidfd is None else pidfd,
        is_child=pidfd is not None and stat is not None and same and stat.ppid == os.getpid(),
        is_alive=same and is_alive(stat),
        is_traceable=pidfd is not None,
    )


def _ended_pidfd() -> int:
    """Return a readable descriptor that stands for a process of which nothing is left."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    return reader


Resumption: TypeAlias = tuple[Life, tuple[Action, ...], Event | None]


def resume(record: ScriptRecord, *, has_process: bool, now_s: float) -> Resumption:
    """Return the life to go on with, what must be done at once, and the event that follows.

    `has_process` says whether the record names a process, dead or alive; `now_s` is CLOCK_BOOTTIME. Nothing is left
    half done: a backoff waits for the rest of its time, a tree whose end had begun is ended.
    """
    life = Life(
        phase=Phase(record.phase),
        crashes=record.crashes,
        restarts=record.restarts,
        tree=record.tree,
        again=record.again,
    )
    match life.phase:
        case Phase.STARTING if not has_process:
            # Recorded, but the program never ran: the gate closed with the old agent.
            return msgspec.structs.replace(life, phase=Phase.STOPPED, tree=False), (), Start()
        case Phase.STARTING:
            return msgspec.structs.replace(life, phase=Phase.RUNNING, tree=True), (), None
        case Phase.STOPPED | Phase.RUNNING:
            return life, (), None
        case Phase.BACKOFF:
            wait = Delay(max(0.0, (record.next_start_at or 0.0) - now_s) * 1000)
            actions, event = _go_on_ending(life, has_process)
            return life, (wait, *actions), event
        case Phase.STOPPING | Phase.CRASHED:
            return life, *_go_on_ending(life, has_process)


def _go_on_ending(life: Life, has_process: bool) -> tuple[tuple[Action, ...], Event | None]:
    if has_process:
        return (EndTree(),), None
    return (), TreeGone() if life.tree or life.phase is Phase.STOPPING else None
