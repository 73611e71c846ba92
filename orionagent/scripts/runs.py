"""Owns `Runs`: the runs of one script, one after the other, each with its process, cgroup leaf and end.

Knows nothing of why a run begins or ends: it acts, and returns what came of it as events of the life's table.
"""

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence

import msgspec
from gevent.event import Event

from orionagent.config import ScriptConfig
from orionagent.errors import SpawnError
from orionagent.scripts.adoption import find_run
from orionagent.scripts.breath import Breath
from orionagent.scripts.cgroup import MemoryKills, Subtree
from orionagent.scripts.endings import Ending, Exit, judge_exit, judge_failed_start
from orionagent.scripts.handover import Descriptors, ScriptRecord, read_definition
from orionagent.scripts.kernel import open_pidfd
from orionagent.scripts.lifecycle import Exited, Phase, Spawned, SpawnFailed
from orionagent.scripts.pipes import Pipes, Plumbing, reading_of
from orionagent.scripts.process import Process
from orionagent.scripts.pump import now_text
from orionagent.scripts.spawn import SpawnPlan, make_plan, spawn, split_command, to_spawn_error
from orionagent.scripts.tree import read_stat
from orionagent.tasks import TaskGroup

log = logging.getLogger(__name__)

ENDED = (Phase.STOPPED, Phase.BACKOFF, Phase.CRASHED)
"""Phases in which the main process is gone, and that has been told of."""

SHELLS = frozenset({"ash", "bash", "dash", "ksh", "sh", "zsh"})


def is_shell(argv: Sequence[str]) -> bool:
    """Tell whether a command is a shell that runs something else."""
    return argv[0].rpartition("/")[2] in SHELLS


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of all scripts share. `boottime` is CLOCK_BOOTTIME in seconds; `draw` gives 0 <= x < 1.

    `socket` is this agent's address, by which its processes are told from another agent's; `record` writes the
    record of all scripts at once, `changed` has it written soon; `main_pids` are the main processes of all scripts;
    once `ending` is set nothing is started.
    """

    socket: str
    record: Callable[[], None]
    changed: Callable[[], None]
    main_pids: Callable[[], set[int]]
    plumbing: Plumbing
    descriptors: Descriptors
    tasks: TaskGroup
    subtree: Subtree
    memory_kills: MemoryKills
    breath: Breath
    ending: Event
    boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    draw: Callable[[], float] = random.random


class Runs:
    """One script's runs. Sole writer of its process, its pipes and what is known of the last run's end.

    `on_ended` hears that a run's main process is gone, `on_emptied` that a tree whose end was asked for is.
    """

    def __init__(
        self,
        script: str,
        surroundings: Surroundings,
        on_ended: Callable[[Process], None],
        on_emptied: Callable[[Process], None],
    ) -> None:
        self.process: Process | None = None
        self.started_at: float | None = None
        self.failed_start: SpawnError | None = None
        self.last: Ending | None = None
        self.note: str | None = None
        self.pipes = Pipes(script, surroundings.plumbing)
        self._script = script
        self._around = surroundings
        self._leaf = surroundings.subtree.leaf(script)
        self._on_ended = on_ended
        self._on_emptied = on_emptied
        self._over_memory = False
        self._is_shell = False
        self._ending: Process | None = None
        self._noted: Process | None = None
        self._child: tuple[int, int] | None = None
        self._child_pidfd: int | None = None

    def __repr__(self) -> str:
        return f"Runs({self._script!r}, {self.process})"

    @property
    def pid(self) -> int | None:
        """Return the main process's pid while it lives."""
        process = self.process
        return process.pid if process is not None and process.exit is None else None

    @property
    def recorded(self) -> tuple[int, int] | None:
        """Return pid and start of the last process made, whether it has become the program or still waits for that."""
        return self._child

    # The begin of a run

    def start(self, config: ScriptConfig) -> Spawned | SpawnFailed:
        """Execute the program."""
        self.failed_start = None
        self.note = None
        self._over_memory = False
        self.pipes.last_lines.clear()
        try:
            plan = make_plan(config, self._around.socket)
            self._is_shell = is_shell(plan.argv)
            pid = self._spawn(config, plan)
        except SpawnError as error:
            self.started_at = None
            self._forget_child()
            self.failed_start = error
            self.last = judge_failed_start(error.message, now_text(time.time()))
            log.warning("%s", error.message)
            return SpawnFailed(transient=error.code == "spawn-transient", draw=self._around.draw())
        assert self._child is not None
        assert self._child_pidfd is not None
        pidfd, self._child_pidfd = self._child_pidfd, None
        self._watch(pid, pidfd, self._child[1], is_child=True)
        log.info("%s runs as pid %d", self._script, pid)
        return Spawned()

    def _spawn(self, config: ScriptConfig, plan: SpawnPlan) -> int:
        stdout, stderr = self._open_writers(config, plan.identity.uid, plan.identity.gid)
        entry = self._leaf.open_entry()
        try:
            return spawn(config, plan, stdout, stderr, self._record_child, entry)
        finally:
            for fd in {stdout, stderr, *(() if entry is None else (entry,))}:
                os.close(fd)

    def _open_writers(self, config: ScriptConfig, uid: int, gid: int) -> tuple[int, int]:
        if config.captureOutput:
            self.pipes.open(reading_of(config))
            return self.pipes.open_writers(uid, gid)
        self.pipes.shut()
        try:
            null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise to_spawn_error(self._script, "open /dev/null", error) from error
        return null, null

    def _record_child(self, pid: int) -> None:
        """Take hold of the child while it still waits: without that, it shall not become the program."""
        try:
            self._child_pidfd = open_pidfd(pid)
            stat = read_stat(pid)
        except OSError as error:
            raise to_spawn_error(self._script, "watch the process", error) from error
        self._child = (pid, stat.start_ticks if stat is not None else 0)
        self.started_at = self._around.boottime()
        self._around.record()

    def _forget_child(self) -> None:
        self._child = None
        if self._child_pidfd is not None:
            os.close(self._child_pidfd)
            self._child_pidfd = None

    def _watch(self, pid: int, pidfd: int, start_ticks: int, *, is_child: bool) -> None:
        if self.process is not None:
            self.process.close()

        def ended(_: Exit) -> None:
            self._on_ended(process)

        process = Process(
            pid=pid,
            pidfd=pidfd,
            start_ticks=start_ticks,
            script=self._script,
            agent=self._around.socket,
            is_child=is_child,
            leaf=self._leaf,
            on_exit=ended,
        )
        self.process = process
        self._around.descriptors.keep(f"{self._script}.pid", pidfd)

    # Its end

    def note_ended(self, process: Process) -> Exited | None:
        """Return the end of the main process; None when that is an old story."""
        return self._note_exit(process) if process is self.process and process is not self._noted else None

    def note_emptied(self, process: Process) -> tuple[bool, Exited | None]:
        """Return whether it is the last run's tree that is empty, and its main process's end if that is news."""
        if process is not self.process:
            return False, None
        self._ending = None
        exited = self.note_ended(process) if process.look() else None
        self.pipes.drain()
        self._let_go()
        return True, exited

    def _note_exit(self, process: Process) -> Exited:
        assert process.exit is not None
        self._noted = process
        self.pipes.drain()
        ran_s = self._around.boottime() - (self.started_at or self._around.boottime())
        told_to_end = self._ending is process
        self.last = judge_exit(
            process.exit,
            by_shell=self._is_shell,
            over_memory=self._over_memory,
            oom_killed=process.exit.looks_killed and not told_to_end and self._around.memory_kills.struck_recently(),
            ran_ms=round(ran_s * 1000),
            at=now_text(time.time()),
        )
        clean = self.last.is_clean
        log.log(logging.INFO if clean else logging.WARNING, "%s (pid %d) %s", self._script, process.pid, self.last.text)
        # An end that is under way says itself when it is over; no other run may begin in its sight.
        tree = self._ending is process or process.has_survivors(self._around.main_pids())
        if not tree:
            self._let_go()
        return Exited(clean=clean, ran_ms=ran_s * 1000, tree=tree, draw=self._around.draw())

    def _let_go(self) -> None:
        self._around.descriptors.forget(f"{self._script}.pid")
        self._leaf.remove()

    def end_tree(self, config: ScriptConfig) -> None:
        """Begin to end the tree, unless that has begun; `on_emptied` hears of the outcome."""
        process = self.process
        if process is None or self._ending is process:
            return
        self._ending = process
        number = signal.Signals[f"SIG{config.stopSignal.removeprefix('SIG')}"]

        def stuck(pids: list[int]) -> None:
            self.note = f"cannot end pid {', '.join(map(str, pids))}: in uninterruptible sleep, or not ours to signal"
            log.error("%s: %s", self._script, self.note)

        def end() -> None:
            killed = process.end_tree(number, config.stopTimeout / 1000, stuck)
            if killed:
                self.note = f"needed SIGKILL after {config.stopTimeout} ms"
                log.warning("%s %s", self._script, self.note)
            self._on_emptied(process)

        self._around.tasks.spawn(f"end:{self._script}", end)

    def end_over_memory(self, config: ScriptConfig) -> None:
        """End the tree because it uses too much memory: that is no clean end, whatever its status."""
        self._over_memory = True
        self.end_tree(config)

    # From one agent to the next

    def adopt(self, record: ScriptRecord, last: Ending | None) -> None:
        """Go on with the run that an earlier agent recorded, if it recorded one."""
        self.started_at = record.started_at
        self.last = last
        if record.pid is None or record.start_ticks is None:
            return
        self._is_shell = is_shell(split_command(read_definition(record).command))
        self._child = (record.pid, record.start_ticks)
        found = find_run(*self._child, lambda: self._around.descriptors.take(f"{self._script}.pid"))
        self._watch(found.pid, found.pidfd, found.start_ticks, is_child=found.is_child)
        if record.phase in ENDED:
            self._noted = self.process  # by the earlier agent, who knew more of it than we can
        if found.is_traceable:
            log.info("%s taken back: pid %d%s", self._script, found.pid, "" if found.is_alive else " (ended meanwhile)")

    def stop_watching(self, *, close: bool) -> None:
        """Let go of everything without touching the processes.

        With `close` the descriptors are closed too, else they stay for the next image of this process.
        """
        if not close:
            self.pipes.stop()
            if self.process is not None:
                self.process.look_away()
            return
        self.pipes.close()
        if self.process is not None:
            self.process.close()

    def remove_traces(self) -> None:
        """Delete pipes and cgroup leaf; nothing may run any more."""
        self._around.descriptors.forget(f"{self._script}.pid")
        self.pipes.remove()
        self._leaf.remove()
