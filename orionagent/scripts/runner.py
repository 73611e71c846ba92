"""Owns `Runner`: one script, its life, its run and its pipes, behind one inbox.

Knows nothing of other scripts, nor of where lines and alerts go.
"""

import logging
import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gevent
import msgspec
from gevent.event import AsyncResult, Event
from gevent.queue import SimpleQueue

from orionagent.config import ScriptConfig
from orionagent.errors import Busy, OrionError, SpawnError, Timeout
from orionagent.scripts import lifecycle
from orionagent.scripts.cgroup import MemoryKills, Subtree
from orionagent.scripts.edges import Edges
from orionagent.scripts.handover import Inherited, ScriptRecord
from orionagent.scripts.kernel import open_pidfd, pid_of_pidfd
from orionagent.scripts.lifecycle import REPORTED, Life, Phase, step
from orionagent.scripts.lines import LineSplitter
from orionagent.scripts.process import Exit, Process
from orionagent.scripts.pump import PipeFiles, Pump, Scratch, now_text
from orionagent.scripts.redact import Redactor
from orionagent.scripts.spawn import make_plan, spawn, to_spawn_error
from orionagent.scripts.tree import is_alive, read_stat
from orionagent.tasks import TaskFailed, TaskGroup
from orionagent.wire import Alert, Batch, Stream

log = logging.getLogger(__name__)

LAST_LINES = 20
DRAIN_S = 0.2
REPLY_SLACK_S = 15.0
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all runners share. `boottime` is CLOCK_BOOTTIME in seconds; `draw` gives 0 <= x < 1.

    `keep` stores a descriptor under a name outside this process (systemd's store), `forget` takes it back.
    """

    streams: str
    socket: str
    hostname: str
    emit: Callable[[Batch], object]
    alert: Callable[[Alert], object]
    changed: Callable[[], None]
    main_pids: Callable[[], set[int]]
    offsets: Mapping[str, int]
    edges: Edges
    scratch: Scratch
    redactor: Redactor
    inherited: Inherited
    tasks: TaskGroup
    subtree: Subtree
    memory_kills: MemoryKills
    keep: Callable[[str, int], None]
    forget: Callable[[str], None]
    on_failure: Callable[[TaskFailed], None] | None = None
    boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    draw: Callable[[], float] = random.random


class _Ended(msgspec.Struct, frozen=True):
    """The main process of this run is gone."""

    process: Process


class _Emptied(msgspec.Struct, frozen=True):
    """The tree of this run is empty."""

    process: Process


class _Reconfigured(msgspec.Struct, frozen=True):
    config: ScriptConfig


_Message: TypeAlias = lifecycle.Event | _Ended | _Emptied | _Reconfigured


class Runner:
    """One script. Its greenlet `script:NAME` is the sole writer of life, process, counters and timers."""

    def __init__(self, config: ScriptConfig, surroundings: Surroundings) -> None:
        self.config = config
        self.life = Life()
        self.process: Process | None = None
        self.started_at: float | None = None
        self.next_start_at: float | None = None
        self.last_exit: dict[str, Any] | None = None
        self.note: str | None = None
        self.over_memory = False
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._around = surroundings
        self._leaf = surroundings.subtree.leaf(config.name)
        self._killed_for_memory = False
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._waiters: list[tuple[bool, AsyncResult[None]]] = []
        self._pumps: dict[str, Pump] = {}
        self._pump_tasks = TaskGroup(f"pumps of {config.name}", surroundings.on_failure)
        self._delay: Any = None
        self._ending: Process | None = None
        self._noted: Process | None = None
        self._hurry = Event()
        self._spawn_error: SpawnError | None = None
        self._child: tuple[int, int] | None = None
        self._child_pidfd: int | None = None

    def __repr__(self) -> str:
        return f"Runner({self.config.name!r}, {self.life.phase}, pid={self.pid})"

    @property
    def name(self) -> str:
        """Return the script's name."""
        return self.config.name

    @property
    def source(self) -> str:
        """Return the source its lines go under."""
        return self.config.source or self.config.name

    @property
    def pid(self) -> int | None:
        """Return the main process's pid while it lives."""
        process = self.process
        return process.pid if process is not None and process.exit is None else None

    @property
    def state(self) -> str:
        """Return what the heartbeat calls this phase."""
        return REPORTED[self.life.phase]

    def run(self) -> None:
        """Take messages until killed."""
        while True:
            self._take(self._inbox.get())

    # What others ask of it

    def post(self, event: lifecycle.Event) -> None:
        """Hand in an event and return at once."""
        self._inbox.put(event)

    def request(self, event: lifecycle.Start | lifecycle.Stop | lifecycle.Restart) -> None:
        """Hand in a wish and wait for its outcome, at most `stopTimeout` and 15 s.

        Raises:
            SpawnError: the script could not be started.
            Busy: somebody else's wish took over.
            Timeout: the tree did not end.
        """
        wants_run = not isinstance(event, lifecycle.Stop)
        outcome: AsyncResult[None] = AsyncResult()
        self._inbox.put(event)
        gevent.sleep(0)
        self._waiters.append((wants_run, outcome))
        self._settle()
        limit_s = self.config.stopTimeout / 1000 + REPLY_SLACK_S
        try:
            outcome.get(timeout=limit_s)
        except gevent.Timeout:
            raise Timeout(
                f"{self.name} is still {self.life.phase} after {limit_s:.0f} s; {self.note or 'see its log'}"
            ) from None

    def reconfigure(self, config: ScriptConfig) -> None:
        """Take a new definition; whoever calls this restarts the script if that is needed."""
        self._inbox.put(_Reconfigured(config))

    def end_over_memory(self) -> None:
        """End the tree because it uses too much memory; the exit counts as a crash."""
        self.over_memory = True
        self._end_tree()

    def hurry(self) -> None:
        """End a running stop by KILL now."""
        self._hurry.set()

    # Messages

    def _take(self, message: _Message) -> None:
        pending: deque[lifecycle.Event] = deque()
        match message:
            case _Ended():
                if message.process is self.process and message.process is not self._noted:
                    pending.append(self._note_exit(message.process))
            case _Emptied():
                if message.process is self.process:
                    self._ending = None
                    self._hurry.clear()
                    if message.process.look() and message.process is not self._noted:
                        pending.append(self._note_exit(message.process))
                    self._drain()
                    self._let_go()
                    pending.append(lifecycle.TreeGone())
            case _Reconfigured():
                self.config = message.config
            case _:
                pending.append(message)
        while pending:
            self.life, actions = step(self.life, pending.popleft(), self.config)
            for action in actions:
                follow_up = self._do(action)
                if follow_up is not None:
                    pending.append(follow_up)
        if self._inbox.empty():  # else the next message, which follows without a switch, has the last word
            self._around.changed()
        self._settle()

    def _do(self, action: lifecycle.Action) -> lifecycle.Event | None:
        match action:
            case lifecycle.Spawn():
                return self._spawn()
            case lifecycle.EndTree():
                self._end_tree()
            case lifecycle.Delay():
                self._start_delay(action.ms / 1000)
            case lifecycle.CancelDelay():
                self._cancel_delay()
            case lifecycle.SendAlert():
                self._send_alert(action)
        return None

    def _settle(self) -> None:
        """Answer the requests whose outcome is known."""
        if self.life.phase in (Phase.STARTING, Phase.STOPPING) or not self._inbox.empty():
            return
        waiters, self._waiters = self._waiters, []
        for wants_run, outcome in waiters:
            running = self.life.phase is Phase.RUNNING
            error: OrionError | None = None
            if wants_run and not running:
                error = self._spawn_error or SpawnError(f"{self.name} did not stay up: {self.last_exit_text()}")
                if self.life.phase is Phase.STOPPED and self.last_exit is not None and self.last_exit.get("code") == 0:
                    error = None
            elif not wants_run and running:
                error = Busy(f"{self.name} was started again while it was being stopped")
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set(None)

    def last_exit_text(self) -> str:
        """Return how the last run ended, for people."""
        return str(self.last_exit["text"]) if self.last_exit else "it never ran"

    # Actions

    def _spawn(self) -> lifecycle.Event:
        self._spawn_error = None
        self.note = None
        self.over_memory = False
        self.last_lines.clear()
        self.next_start_at = None
        try:
            plan = make_plan(self.config, self._around.socket)
            writers = self._open_writers(plan.identity.uid, plan.identity.gid)
            entry = self._leaf.open_entry()
            try:
                pid = spawn(self.config, plan, *writers, self._record_child, entry)
            finally:
                for fd in {*writers, *(() if entry is None else (entry,))}:
                    os.close(fd)
        except SpawnError as error:
            self.started_at = None
            self._forget_child()
            self._spawn_error = error
            self.last_exit = {
                "text": error.message,
                "code": None,
                "signal": None,
                "at": now_text(time.time()),
            }
            log.warning("%s", error.message)
            return lifecycle.SpawnFailed(transient=error.code == "spawn-transient", draw=self._around.draw())
        assert self._child is not None
        assert self._child_pidfd is not None
        pidfd, self._child_pidfd = self._child_pidfd, None
        self._watch(pid, pidfd, self._child[1], is_child=True)
        log.info("%s runs as pid %d", self.name, pid)
        return lifecycle.Spawned()

    def _record_child(self, pid: int) -> None:
        """Take hold of the child while it still waits: without that, it shall not become the program."""
        try:
            self._child_pidfd = open_pidfd(pid)
            stat = read_stat(pid)
        except OSError as error:
            raise to_spawn_error(self.name, "watch the process", error) from error
        self._child = (pid, stat.start_ticks if stat is not None else 0)
        self.started_at = self._around.boottime()
        self._around.changed()

    def _forget_child(self) -> None:
        self._child = None
        if self._child_pidfd is not None:
            os.close(self._child_pidfd)
            self._child_pidfd = None

    def _watch(self, pid: int, pidfd: int, start_ticks: int, *, is_child: bool) -> None:
        if self.process is not None:
            self.process.close()

        def ended(_: Exit) -> None:
            self._inbox.put(_Ended(process))

        process = Process(
            pid=pid,
            pidfd=pidfd,
            start_ticks=start_ticks,
            script=self.name,
            agent=self._around.socket,
            is_child=is_child,
            leaf=self._leaf,
            on_exit=ended,
        )
        self.process = process
        self._around.keep(f"{self.name}.pid", pidfd)

    def _open_writers(self, uid: int, gid: int) -> tuple[int, int]:
        if not self.config.captureOutput:
            self.close_pumps()
            null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            return null, null
        self.open_pumps()
        writers: list[int] = []
        try:
            for stream in STREAMS:
                writers.append(self._pumps[stream].files.open_writer(uid, gid))
        except SpawnError:
            for fd in writers:
                os.close(fd)
            raise
        return writers[0], writers[1]

    def open_pumps(self) -> None:
        """Open the pipes that are not open yet and start moving lines."""
        for stream in STREAMS:
            if stream in self._pumps:
                continue
            pipe = f"{self.name}:{stream}"
            known = self._around.offsets.get(pipe, 0)
            files = PipeFiles(self._around.streams, self.name, stream)
            kept = self._around.inherited.take(f"{self.name}.{stream}")
            reader, position = files.open(known)
            if kept is not None:
                os.close(reader)
                reader = kept
                os.set_blocking(reader, False)
            splitter = LineSplitter(
                self.source,
                stream,
                stderr_level=self.config.stderrLevel,  # type: ignore[arg-type]
                multiline=self.config.multiline,
                redactor=self._around.redactor,
                offset=max(known, os.fstat(position).st_size),
            )
            pump = Pump(
                pipe,
                files,
                splitter,
                self._around.emit,
                edges=self._around.edges,
                scratch=self._around.scratch,
                reader=reader,
                position=position,
                buffered_offset=known,
                last_lines=self.last_lines,
            )
            self._pumps[stream] = pump
            self._around.keep(f"{self.name}.{stream}", reader)
            self._pump_tasks.spawn(f"pump:{pipe}", pump.run)

    def close_pumps(self) -> None:
        """Stop moving lines; what is in the pipes stays there."""
        self._pump_tasks.stop()
        for pump in self._pumps.values():
            pump.close()
        self._pumps.clear()

    def _drain(self) -> None:
        for pump in self._pumps.values():
            pump.drain(DRAIN_S)

    def _note_exit(self, process: Process) -> lifecycle.Exited:
        assert process.exit is not None
        self._noted = process
        self._drain()
        ran_s = self._around.boottime() - (self.started_at or self._around.boottime())
        clean = process.exit.is_clean and not self.over_memory
        self._killed_for_memory = (
            process.exit.looks_killed and self._ending is not process and self._around.memory_kills.struck_recently()
        )
        text = f"{process.exit} (out of memory)" if self._killed_for_memory else str(process.exit)
        self.last_exit = {
            "text": "went over its memory limit" if self.over_memory else text,
            "code": process.exit.code,
            "signal": process.exit.signal_name,
            "at": now_text(time.time()),
            "ranMs": round(ran_s * 1000),
        }
        log.log(logging.INFO if clean else logging.WARNING, "%s (pid %d) %s", self.name, process.pid, text)
        tree = process.has_survivors(self._around.main_pids())
        if not tree and self._ending is None:
            self._let_go()
        return lifecycle.Exited(clean=clean, ran_ms=ran_s * 1000, tree=tree, draw=self._around.draw())

    def _let_go(self) -> None:
        self._around.forget(f"{self.name}.pid")
        self._leaf.remove()

    def _end_tree(self) -> None:
        process = self.process
        if process is None or self._ending is process:
            return
        self._ending = process
        number = signal.Signals[f"SIG{self.config.stopSignal.removeprefix('SIG')}"]

        def stuck(pids: list[int]) -> None:
            self.note = f"cannot end pid {', '.join(map(str, pids))}: in uninterruptible sleep"
            log.error("%s: %s", self.name, self.note)

        def end() -> None:
            killed = process.end_tree(number, self.config.stopTimeout / 1000, self._hurry, stuck)
            if killed:
                self.note = f"needed SIGKILL after {self.config.stopTimeout} ms"
                log.warning("%s %s", self.name, self.note)
            self._inbox.put(_Emptied(process))

        self._around.tasks.spawn(f"end:{self.name}", end)

    def _start_delay(self, delay_s: float) -> None:
        self._cancel_delay()
        self.next_start_at = self._around.boottime() + delay_s
        if delay_s <= 0:
            self._inbox.put(lifecycle.DelayElapsed())
            return
        self._delay = gevent.get_hub().loop.timer(delay_s)
        self._delay.start(self._inbox.put, lifecycle.DelayElapsed())

    def _cancel_delay(self) -> None:
        self.next_start_at = None
        if self._delay is not None:
            self._delay.stop()
            self._delay.close()
            self._delay = None

    def _send_alert(self, action: lifecycle.SendAlert) -> None:
        last = self.last_exit or {}
        process_exit = self.process.exit if self.process is not None and self._spawn_error is None else None
        if self._spawn_error is not None:
            cause = "spawn"
        elif self.over_memory:
            cause = "memory-limit"
        elif self._killed_for_memory:
            cause = "oom-kill"
        elif process_exit is None or (process_exit.code is None and process_exit.signal is None):
            cause = "unknown"
        else:
            cause = "signal" if process_exit.signal is not None else "exit"
        run = f"{self.process.pid}-{self.process.start_ticks}" if self.process is not None else "0"
        follows = "no restart" if action.restart_in_ms is None else f"restart in {action.restart_in_ms / 1000:.1f} s"
        self._around.alert(
            Alert(
                id="-".join(map(str, (self._around.hostname, self.name, run, self.life.restarts, action.crashes))),
                timestamp=str(last.get("at") or now_text(time.time())),
                hostname=self._around.hostname,
                script=self.name,
                source=self.source,
                message=f"{self.name} crashed: {self.last_exit_text()}; {follows}",
                cause=cause,  # type: ignore[arg-type]
                exitCode=last.get("code"),
                signal=last.get("signal"),
                coreDumped=bool(process_exit and process_exit.core_dumped),
                ranMs=last.get("ranMs"),
                crashesInARow=action.crashes,
                willRestart=action.restart_in_ms is not None,
                restartInMs=None if action.restart_in_ms is None else round(action.restart_in_ms),
                lastLines=tuple(self.last_lines) if self.config.captureOutput else (),
            )
        )

    # Handing over and taking back

    def to_record(self) -> ScriptRecord:
        """Return what a next agent must know."""
        pid, ticks = self._child or (None, None)
        if self.process is not None and self._child is not None and self.process.pid == pid and not self.life.tree:
            pid = ticks = None
        return ScriptRecord(
            name=self.name,
            definition=msgspec.to_builtins(self.config),
            phase=str(self.life.phase),
            crashes=self.life.crashes,
            restarts=self.life.restarts,
            tree=self.life.tree,
            again=self.life.again,
            pid=pid,
            start_ticks=ticks,
            started_at=self.started_at,
            next_start_at=self.next_start_at,
            last_exit=self.last_exit,
        )

    def adopt(self, record: ScriptRecord) -> None:
        """Take a script back from an earlier agent of this boot. Call before `run`."""
        phase = Phase(record.phase)
        self.started_at = record.started_at
        self.last_exit = record.last_exit
        self.life = Life(
            phase=phase,
            crashes=record.crashes,
            restarts=record.restarts,
            tree=record.tree,
            again=record.again,
        )
        if self.config.captureOutput:
            self.open_pumps()
        if record.pid is not None and record.start_ticks is not None:
            self._adopt_process(record.pid, record.start_ticks)
        if phase in (Phase.STOPPED, Phase.BACKOFF, Phase.CRASHED):
            self._noted = self.process  # by the earlier agent, who knew more of it than we can
        match phase:
            case Phase.BACKOFF:
                self._start_delay(max(0.0, (record.next_start_at or 0.0) - self._around.boottime()))
                self._go_on_ending()
            case Phase.STOPPING | Phase.CRASHED:
                self._go_on_ending()
            case Phase.STARTING if self.process is None:
                # Recorded, but the program never ran: the gate closed with the old agent.
                self.life = msgspec.structs.replace(self.life, phase=Phase.STOPPED, tree=False)
                self._inbox.put(lifecycle.Start())
            case Phase.STARTING:
                self.life = msgspec.structs.replace(self.life, phase=Phase.RUNNING, tree=True)

    def _go_on_ending(self) -> None:
        """End what an earlier agent was ending when it died."""
        if self.process is not None:
            self._end_tree()
        elif self.life.tree or self.life.phase is Phase.STOPPING:
            self._inbox.put(lifecycle.TreeGone())

    def _adopt_process(self, pid: int, start_ticks: int) -> None:
        self._child = (pid, start_ticks)
        stat = read_stat(pid)
        same = stat is not None and stat.start_ticks == start_ticks
        kept = self._around.inherited.take(f"{self.name}.pid")
        if kept is not None and pid_of_pidfd(kept) not in (pid, None):
            os.close(kept)  # of another run
            kept = None
        try:
            pidfd = kept if kept is not None else open_pidfd(pid) if same else None
        except ProcessLookupError:
            pidfd = None
        if pidfd is None:
            # It ended while nobody watched, and the kernel keeps no memory of it.
            pidfd = _ended_pidfd()
            self._watch(pid, pidfd, start_ticks, is_child=False)
        else:
            is_child = stat is not None and same and stat.ppid == os.getpid()
            self._watch(pid, pidfd, start_ticks, is_child=is_child)
            log.info(
                "%s taken back: pid %d%s",
                self.name,
                pid,
                "" if same and is_alive(stat) else " (ended meanwhile)",
            )

    def stop_watching(self, *, close: bool) -> None:
        """Let go of everything without touching the processes.

        With `close` the descriptors are closed too, else they stay for the next image of this process.
        """
        self._cancel_delay()
        self._pump_tasks.stop()
        if close:
            self.close_pumps()
            if self.process is not None:
                self.process.close()


def _ended_pidfd() -> int:
    """Return a readable descriptor that stands for a process of which nothing is left."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    return reader
