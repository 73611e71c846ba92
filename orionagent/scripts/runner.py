"""Owns `Runner`: one script, whose life's table it feeds with events and whose actions it has carried out.

Knows nothing of other scripts, nor of where lines and alerts go.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import gevent
import msgspec
from gevent.queue import SimpleQueue

from orionagent.config import ScriptConfig
from orionagent.errors import Busy, Timeout
from orionagent.scripts import lifecycle
from orionagent.scripts.adoption import resume
from orionagent.scripts.alerts import make_alert
from orionagent.scripts.endings import read_ending
from orionagent.scripts.handover import ScriptRecord
from orionagent.scripts.lifecycle import REPORTED, Life, step
from orionagent.scripts.pipes import reading_of
from orionagent.scripts.process import Process
from orionagent.scripts.runs import Runs, Surroundings
from orionagent.scripts.wishes import Wishes
from orionagent.wire import Alert

REPLY_SLACK_S = 15.0


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
    """One script. Its greenlet `script:NAME` is the sole writer of life, runs, counters and timers."""

    def __init__(
        self, config: ScriptConfig, surroundings: Surroundings, hostname: str, alert: Callable[[Alert], object]
    ) -> None:
        self.config = config
        self.life = Life()
        self.next_start_at: float | None = None
        self.runs = Runs(
            config.name,
            surroundings,
            on_ended=lambda process: self._inbox.put(_Ended(process)),
            on_emptied=lambda process: self._inbox.put(_Emptied(process)),
        )
        self._around = surroundings
        self.hostname = hostname
        self._alert = alert
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._wishes = Wishes()
        self._delay: Any = None

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
        return self.runs.pid

    @property
    def process(self) -> Process | None:
        """Return the run whose tree may be alive."""
        return self.runs.process if self.life.tree else None

    @property
    def uptime_s(self) -> float | None:
        """Return how long it has been running; None when it is not."""
        started_at = self.runs.started_at
        return None if self.pid is None or started_at is None else self._around.boottime() - started_at

    @property
    def next_start_in_s(self) -> float | None:
        """Return how much of the backoff is left; None when nothing is waited for."""
        return None if self.next_start_at is None else max(0.0, self.next_start_at - self._around.boottime())

    @property
    def state(self) -> str:
        """Return what the heartbeat calls this phase."""
        return REPORTED[self.life.phase]

    def run(self) -> None:
        """Take messages until killed."""
        breath = self._around.breath
        while True:
            self._inbox.peek()  # taken out only when its turn has come: an empty inbox means that all is settled
            breath.take()
            self._take(self._inbox.get())
            breath.done()

    # What others ask of it

    def request(self, event: lifecycle.Start | lifecycle.Stop | lifecycle.Restart) -> None:
        """Hand in a wish and wait for its outcome, at most `stopTimeout` and 15 s.

        Raises:
            SpawnError: the script could not be started.
            Busy: somebody else's wish took over, or the agent is stopping.
            Timeout: the tree did not end.
        """
        if self._around.ending.is_set() and not isinstance(event, lifecycle.Stop):
            raise Busy(f"cannot start {self.name}: the agent is stopping")
        self._inbox.put(event)
        gevent.sleep(0)
        outcome = self._wishes.add(wants_run=not isinstance(event, lifecycle.Stop))
        self._settle()
        limit_s = self.config.stopTimeout / 1000 + REPLY_SLACK_S
        try:
            outcome.get(timeout=limit_s)
        except gevent.Timeout:
            raise Timeout(
                f"{self.name} is still {self.life.phase} after {limit_s:.0f} s; {self.runs.note or 'see its log'}"
            ) from None

    def reconfigure(self, config: ScriptConfig) -> None:
        """Take a new definition; whoever calls this restarts the script if that is needed."""
        self._inbox.put(_Reconfigured(config))

    def end_over_memory(self) -> None:
        """End the tree because it uses too much memory; the exit counts as a crash."""
        self.runs.end_over_memory(self.config)

    # Messages

    def _take(self, message: _Message) -> None:
        pending: deque[lifecycle.Event] = deque()
        match message:
            case _Ended():
                exited = self.runs.note_ended(message.process)
                if exited is not None:
                    pending.append(exited)
            case _Emptied():
                is_current, exited = self.runs.note_emptied(message.process)
                if exited is not None:
                    pending.append(exited)
                if is_current:
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
        self._around.changed()
        self._settle()

    def _settle(self) -> None:
        """Answer the requests whose outcome is known."""
        if self._inbox.empty():
            runs = self.runs
            self._wishes.settle(script=self.name, phase=self.life.phase, failed_start=runs.failed_start, last=runs.last)

    # Actions

    def _do(self, action: lifecycle.Action) -> lifecycle.Event | None:
        match action:
            case lifecycle.Spawn():
                self.next_start_at = None
                return self.runs.start(self.config)
            case lifecycle.EndTree():
                self.runs.end_tree(self.config)
            case lifecycle.Delay():
                self._start_delay(action.ms / 1000)
            case lifecycle.CancelDelay():
                self._cancel_delay()
            case lifecycle.SendAlert():
                self._send_alert(action)
        return None

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

    def _send_alert(self, due: lifecycle.SendAlert) -> None:
        ending, process = self.runs.last, self.runs.process
        assert ending is not None  # a crash is an end, or a start that failed
        self._alert(
            make_alert(
                ending,
                due,
                hostname=self.hostname,
                script=self.name,
                source=self.source,
                run=f"{process.pid}-{process.start_ticks}" if process is not None else "0",
                restarts=self.life.restarts,
                last_lines=self.runs.pipes.last_lines if self.config.captureOutput else (),
            )
        )

    # Handing over and taking back

    def to_record(self) -> ScriptRecord:
        """Return what a next agent must know."""
        runs = self.runs
        pid, ticks = runs.recorded or (None, None)
        if runs.process is not None and runs.process.pid == pid and not self.life.tree:
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
            started_at=runs.started_at,
            next_start_at=self.next_start_at,
            last_exit=None if runs.last is None else runs.last.to_dict(),
        )

    def adopt(self, record: ScriptRecord) -> None:
        """Take a script back from an earlier agent of this boot. Call before `run`."""
        if self.config.captureOutput:
            self.runs.pipes.open(reading_of(self.config))
        self.runs.adopt(record, read_ending(record.last_exit))
        self.life, actions, event = resume(
            record, has_process=self.runs.process is not None, now_s=self._around.boottime()
        )
        for action in actions:
            self._do(action)
        if event is not None:
            self._inbox.put(event)

    def stop_watching(self, *, close: bool) -> None:
        """Let go of everything without touching the processes.

        With `close` the descriptors are closed too, else they stay for the next image of this process.
        """
        self._cancel_delay()
        self.runs.stop_watching(close=close)
