"""Owns `Fleet`: the map of scripts, and the record of them that outlives this process.

Knows nothing of the order in which scripts start, nor of the file they are defined in.
"""

import difflib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import gevent
from gevent.event import Event

from orionagent.config import ScriptConfig
from orionagent.errors import NotFound, OrionError
from orionagent.paths import Paths
from orionagent.scripts.breath import Breath
from orionagent.scripts.cgroup import MemoryKills, Subtree
from orionagent.scripts.edges import Edges
from orionagent.scripts.handover import (
    STATE_VERSION,
    Descriptors,
    ScriptRecord,
    StateRecord,
    load_state,
    read_definition,
    save_state,
)
from orionagent.scripts.lifecycle import Phase, Restart, Start, Stop
from orionagent.scripts.pipes import Plumbing
from orionagent.scripts.process import reap_orphans
from orionagent.scripts.pump import Scratch
from orionagent.scripts.redact import Redactor
from orionagent.scripts.runner import Runner
from orionagent.scripts.runs import Surroundings
from orionagent.scripts.tree import Census, read_boot_id
from orionagent.scripts.usage import Limit, MemoryWatch, Meter, Usage
from orionagent.tasks import Task, TaskFailed, TaskGroup
from orionagent.wire import Alert, Batch

log = logging.getLogger(__name__)

AT_ONCE = 10
Wish: TypeAlias = Start | Stop | Restart


class Fleet:
    """All scripts of one agent. Sole writer of the script map and of the state file.

    `emit` takes lines and returns once they may leave their pipe; `offsets` says what of which pipe the buffer
    holds already; `subtree` is where scripts get cgroups of their own; `memory_kills` tells of the kernel's
    out-of-memory killer. Nothing is recorded before `begin_record`.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        hostname: str,
        emit: Callable[[Batch], object],
        alert: Callable[[Alert], object],
        offsets: Mapping[str, int],
        redactor: Redactor,
        descriptors: Descriptors,
        on_failure: Callable[[TaskFailed], None] | None,
        subtree: Subtree,
        memory_kills: MemoryKills,
    ) -> None:
        self.tasks = TaskGroup("supervisor", on_failure)
        self._paths = paths
        self._hostname = hostname
        self._alert = alert
        self._runners: dict[str, Runner] = {}
        self._edges = Edges()
        self._scratch = Scratch()
        self._meter = Meter(self._look)
        self._memory_watch = MemoryWatch(self._limits, self._look, self.tasks)
        self._boot_id = read_boot_id()
        self._frozen = True
        self._saving: Task | None = None
        self._around = Surroundings(
            socket=paths.socket,
            record=self._save,
            changed=self._save_soon,
            main_pids=self.main_pids,
            plumbing=Plumbing(
                folder=paths.streams,
                emit=emit,
                offsets=offsets,
                edges=self._edges,
                scratch=self._scratch,
                redactor=redactor,
                descriptors=descriptors,
                on_failure=on_failure,
            ),
            descriptors=descriptors,
            tasks=self.tasks,
            subtree=subtree,
            memory_kills=memory_kills,
            breath=Breath(),
            ending=Event(),
        )
        self.state = load_state(paths.state, self._boot_id, descriptors.take("state"))

    def __repr__(self) -> str:
        return f"Fleet({list(self._runners.values())})"

    # The map

    def __iter__(self) -> Iterator[Runner]:
        return iter(list(self._runners.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._runners

    def names(self) -> list[str]:
        """Return all script names in the file's order."""
        return list(self._runners)

    def get(self, name: str) -> Runner | None:
        """Return a script, None when there is none of this name."""
        return self._runners.get(name)

    def find(self, name: str) -> Runner:
        """Return a script.

        Raises:
            NotFound: there is none of this name; the message has the nearest.
        """
        runner = self._runners.get(name)
        if runner is None:
            near = difflib.get_close_matches(name, self._runners, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `orion script list` shows all"
            raise NotFound(f"Script not found: {name}{hint}")
        return runner

    def orders(self) -> dict[str, Sequence[str]]:
        """Return what each script is to be started after."""
        return {name: runner.config.after for name, runner in self._runners.items()}

    def add(self, config: ScriptConfig, record: ScriptRecord | None = None) -> Runner:
        """Take a script in, with what `record` says an earlier agent left of it; nothing is started."""
        runner = Runner(config, self._around, self._hostname, self._alert)
        self._runners[config.name] = runner
        if record is not None:
            runner.adopt(record)
        self.tasks.spawn(f"script:{config.name}", runner.run)
        self._heed_limit(config)
        return runner

    def change(self, runner: Runner, config: ScriptConfig) -> None:
        """Give a script another definition; it is restarted if it runs or is about to."""
        active = runner.life.phase in (Phase.RUNNING, Phase.STARTING, Phase.BACKOFF)
        runner.reconfigure(config)
        if active:
            self.try_request(runner, Restart())
        self._heed_limit(config)

    def rename_host(self, hostname: str) -> None:
        """Let alerts carry another hostname from the next one on."""
        self._hostname = hostname
        for runner in self:
            runner.hostname = hostname

    def drop(self, name: str) -> None:
        """End a script and forget all of it; nothing happens where somebody else does that at the same time."""
        runner = self._runners.get(name)
        if runner is None:
            return
        if runner.life.tree or runner.life.phase is not Phase.STOPPED:
            self.try_request(runner, Stop())
        if self._runners.get(name) is not runner:
            return
        del self._runners[name]
        self.tasks.cancel(f"script:{name}")
        runner.stop_watching(close=True)
        runner.runs.remove_traces()
        self._save()

    # Wishes

    @staticmethod
    def try_request(runner: Runner, wish: Wish) -> None:
        """Carry a wish out and wait for its outcome; a failure is logged."""
        try:
            runner.request(wish)
        except OrionError as error:
            log.warning("%s", error.message)

    def request_all(self, wishes: Sequence[tuple[str, Wish]], at_once: int = AT_ONCE) -> None:
        """Carry out wishes in parallel, a few at a time, and wait for all outcomes; failures are logged."""
        for at in range(0, len(wishes), at_once):
            # One may have been removed while the ones before it started.
            batch = [(self._runners[name], wish) for name, wish in wishes[at : at + at_once] if name in self._runners]
            gevent.joinall([gevent.spawn(self.try_request, runner, wish) for runner, wish in batch])

    def refuse_starts(self) -> None:
        """Start nothing any more: what is asked for from now on would outlive the stop."""
        self._around.ending.set()

    # Looks at the processes

    def _look(self) -> Census:
        return Census.take(self._paths.socket)

    def usage(self) -> Mapping[str, Usage]:
        """Return what each script's tree uses."""
        self._around.memory_kills.look()
        return self._meter.read({runner.name: runner.process for runner in self if runner.process is not None})

    def main_pids(self) -> set[int]:
        """Return the main processes that live."""
        return {runner.pid for runner in self if runner.pid is not None}

    def reap(self) -> None:
        """Reap orphans that were left to this process."""
        reap_orphans(self.main_pids())

    def _heed_limit(self, config: ScriptConfig) -> None:
        if config.maxMemoryMb is not None:
            self._memory_watch.wake()

    def _limits(self) -> list[Limit]:
        return [
            Limit(
                script=runner.name,
                memory_mb=runner.config.maxMemoryMb,
                process=runner.process if runner.life.phase is Phase.RUNNING else None,
                exceed=runner.end_over_memory,
            )
            for runner in self
            if runner.config.maxMemoryMb is not None
        ]

    # The record

    def begin_record(self) -> None:
        """Write the record, from now on at every change; cgroups of scripts that are gone are removed."""
        self._around.subtree.sweep(self._runners)
        self._frozen = False
        self._save()

    def to_record(self) -> StateRecord:
        """Return what a next agent needs to take the scripts back."""
        return StateRecord(
            version=STATE_VERSION,
            boot_id=self._boot_id,
            agent_pid=os.getpid(),
            scripts=[runner.to_record() for runner in self],
        )

    def _save_soon(self) -> None:
        """Write the record once for all that changes before this greenlet's turn: fifty crashes make one write."""
        if self._saving is None and not self._frozen:
            self._saving = self.tasks.spawn("record", self._save_once)

    def _save_once(self) -> None:
        self._saving = None
        self._save()

    def _save(self) -> None:
        """Write the record. A failure is logged: the scripts matter more than the record."""
        if self._frozen:
            return
        try:
            save_state(self._paths.state, self.to_record())
        except OSError as error:
            log.error(
                "cannot write %s: %s; a restart of the agent would not find its scripts", self._paths.state, error
            )

    def last_definitions(self) -> Sequence[ScriptConfig]:
        """Return the definitions that an earlier agent of this boot ran by; () when there was none."""
        return () if self.state is None else tuple(read_definition(record) for record in self.state.scripts)

    def forget_state(self) -> None:
        """Delete the record."""
        self._frozen = True
        if os.path.exists(self._paths.state):
            os.unlink(self._paths.state)

    def let_go(self, *, close: bool) -> None:
        """Stop moving lines and taking events, and leave the processes alone.

        With `close` all descriptors are closed, else they stay open for the next image of this process.
        """
        self._save()
        self._frozen = True
        self.tasks.stop()
        for runner in self:
            runner.stop_watching(close=close)
        self._edges.close()
        self._scratch.close()
