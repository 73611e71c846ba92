"""Owns `Supervisor`: the map of scripts, their order, and the record of them that outlives this process.

Knows nothing of logs, metrics or the command line: lines and alerts leave through `emit` and `alert`.
"""

import difflib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from orionagent.config import ScriptConfig, check_script_target, load_scripts, parse_script, save_scripts
from orionagent.errors import BadRequest, Exists, NotFound, OrionError
from orionagent.paths import Paths
from orionagent.scripts.cgroup import MemoryKills, Subtree
from orionagent.scripts.edges import Edges
from orionagent.scripts.handover import (
    STATE_VERSION,
    Inherited,
    ScriptRecord,
    StateRecord,
    load_state,
    read_definition,
    save_state,
)
from orionagent.scripts.lifecycle import Phase, Restart, Start, Stop
from orionagent.scripts.order import find_waves
from orionagent.scripts.process import reap_orphans
from orionagent.scripts.pump import PipeFiles, Scratch
from orionagent.scripts.redact import Redactor
from orionagent.scripts.runner import STREAMS, Runner, Surroundings
from orionagent.scripts.tree import (
    CLOCK_TICKS,
    Census,
    count_descriptors,
    read_boot_id,
    read_command,
    total_rss_bytes,
)
from orionagent.tasks import TaskFailed, TaskGroup
from orionagent.wire import Alert, Batch, ScriptReport

log = logging.getLogger(__name__)

USAGE_FRESH_S = 1.0
MEMORY_CHECK_S = 5.0
STAGGER = 10
MIB = 1 << 20


def _keep_nowhere(_name: str, _fd: int) -> None:
    """Stand in for a descriptor store where there is none."""


def _forget_nothing(_name: str) -> None:
    """Stand in for a descriptor store where there is none."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a script's whole tree uses."""

    pids: tuple[int, ...] = ()
    cpu_percent: float | None = None
    memory_mb: float | None = None


class Supervisor:
    """All scripts of one agent. Sole writer of the script map and of the state file.

    `emit` takes lines and returns once they may leave their pipe; `offsets` says what of which pipe the buffer
    holds already; `inherited` has the descriptors that an earlier agent left; `subtree` is where scripts get
    cgroups of their own; `memory_kills` tells of the kernel's out-of-memory killer.
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
        inherited: Inherited,
        on_failure: Callable[[TaskFailed], None] | None = None,
        keep: Callable[[str, int], None] = _keep_nowhere,
        forget: Callable[[str], None] = _forget_nothing,
        subtree: Subtree | None = None,
        memory_kills: MemoryKills | None = None,
    ) -> None:
        self._paths = paths
        self._runners: dict[str, Runner] = {}
        self._tasks = TaskGroup("supervisor", on_failure)
        self._boot_id = read_boot_id()
        self._edges = Edges()
        self._scratch = Scratch()
        self._usage: dict[str, Usage] = {}
        self._usage_at = float("-inf")
        self._cpu_before: dict[str, tuple[float, int]] = {}
        self._memory_watch: gevent.Greenlet[..., Any] | None = None
        self._subtree = subtree or Subtree(None)
        self._memory_kills = memory_kills or MemoryKills(None, time.monotonic)
        self._around = Surroundings(
            streams=paths.streams,
            socket=paths.socket,
            hostname=hostname,
            emit=emit,
            alert=alert,
            changed=self._save,
            main_pids=self._main_pids,
            offsets=offsets,
            edges=self._edges,
            scratch=self._scratch,
            redactor=redactor,
            inherited=inherited,
            tasks=self._tasks,
            subtree=self._subtree,
            memory_kills=self._memory_kills,
            keep=keep,
            forget=forget,
            on_failure=on_failure,
        )
        self._to_start: dict[str, Start | Restart] = {}
        self._editing = BoundedSemaphore(1)
        self._frozen = True
        self._state = load_state(self._paths.state, self._boot_id, inherited.take("state"))

    def __repr__(self) -> str:
        return f"Supervisor({list(self._runners.values())})"

    # Start and stop

    def start_all(self, configs: Sequence[ScriptConfig]) -> None:
        """Take back what runs already, then start the enabled rest wave by wave; returns when each was tried."""
        self.take_back(configs)
        self.start_rest()

    def take_back(self, configs: Sequence[ScriptConfig]) -> None:
        """Make the script map, with what an earlier agent left running in it; never yields to other greenlets.

        From here on whatever runs is ours to stop, also when the start is broken off.
        """
        state = self._state
        known = {record.name: record for record in state.scripts} if state is not None else {}
        by_name = {config.name: config for config in configs}
        waves = find_waves({config.name: config.after for config in configs})
        for name in [name for wave in waves for name in wave]:
            record = known.pop(name, None)
            if record is None:
                self._add_runner(by_name[name], None)
                self._to_start[name] = Start()
            elif self._add_runner(by_name[name], record) is not None:
                self._to_start[name] = Restart()
        self._end_unknown(known.values())
        self._subtree.sweep(self._runners)
        self._frozen = False
        self._save()

    def start_rest(self) -> None:
        """Start what is enabled and was not taken back, and restart what was changed meanwhile, wave by wave."""
        wishes, self._to_start = self._to_start, {}
        for wave in self._waves():
            self._request_all(
                [
                    (name, wishes[name])
                    for name in wave
                    if name in wishes and (self._runners[name].config.enabled or isinstance(wishes[name], Restart))
                ]
            )
        self._watch_memory()

    def _add_runner(self, config: ScriptConfig, record: ScriptRecord | None) -> Runner | None:
        """Make a runner; return it when it runs under an older definition than the file has now."""
        runner = Runner(config, self._around)
        self._runners[config.name] = runner
        stale = False
        if record is not None:
            stale = record.pid is not None and read_definition(record) != config
            runner.adopt(record)
        self._tasks.spawn(f"script:{config.name}", runner.run)
        return runner if stale else None

    def _end_unknown(self, records: Iterable[ScriptRecord]) -> None:
        """Stop what an earlier agent ran and the file no longer names."""
        for record in records:
            if record.pid is None:
                continue
            self._add_runner(read_definition(record), record)
            self._tasks.spawn(f"remove:{record.name}", self._drop_runner, record.name)

    def _request_all(self, wishes: Sequence[tuple[str, Start | Stop | Restart]]) -> None:
        """Carry out wishes in parallel, a few at a time, and wait for all outcomes; failures are logged."""
        for at in range(0, len(wishes), STAGGER):
            # One may have been removed while the ones before it started.
            batch = [(self._runners[name], wish) for name, wish in wishes[at : at + STAGGER] if name in self._runners]
            gevent.joinall([gevent.spawn(self._try_request, runner, wish) for runner, wish in batch])

    @staticmethod
    def _try_request(runner: Runner, wish: Start | Stop | Restart) -> None:
        try:
            runner.request(wish)
        except OrionError as error:
            log.warning("%s", error.message)

    def stop_all(self) -> None:
        """Stop all scripts in waves, the reverse of the start; returns when every tree is empty or timed out."""
        for wave in reversed(self._waves()):
            runners = [self._runners[name] for name in wave if name in self._runners]
            gevent.joinall([gevent.spawn(self._try_request, runner, Stop()) for runner in runners])

    def stop_limit_s(self) -> float:
        """Return how long `stop_all` may take by the scripts' own stop timeouts."""
        waves = self._waves()
        return sum(max((self._runners[n].config.stopTimeout for n in wave), default=0) for wave in waves) / 1000

    def let_go(self, *, close: bool) -> None:
        """Stop moving lines and taking events, and leave the processes alone.

        With `close` all descriptors are closed, else they stay open for the next image of this process.
        """
        self._save()
        self._frozen = True
        self._tasks.stop()
        for runner in self._runners.values():
            runner.stop_watching(close=close)
        self._edges.close()
        self._scratch.close()

    def last_known(self) -> Sequence[ScriptConfig]:
        """Return the definitions that an earlier agent of this boot ran by; () when there was none."""
        if self._state is None:
            return ()
        return tuple(read_definition(record) for record in self._state.scripts)

    def forget_state(self) -> None:
        """Delete the record after a clean stop, so that the next start follows `enabled` only."""
        self._frozen = True
        if os.path.exists(self._paths.state):
            os.unlink(self._paths.state)

    def _waves(self) -> list[list[str]]:
        names = self._runners
        return find_waves({name: [a for a in r.config.after if a in names] for name, r in names.items()})

    # Commands

    def start(self, name: str) -> dict[str, Any]:
        """Start a script and return its row; nothing happens when it runs already.

        Raises:
            NotFound: no such script.
            SpawnError: it could not be started.
        """
        return self._ask(name, Start())

    def stop(self, name: str) -> dict[str, Any]:
        """End a script's whole tree and return its row."""
        return self._ask(name, Stop())

    def restart(self, name: str) -> dict[str, Any]:
        """End a script's tree, start it anew, return its row."""
        return self._ask(name, Restart())

    def _ask(self, name: str, wish: Start | Stop | Restart) -> dict[str, Any]:
        runner = self._find(name)
        runner.request(wish)
        return self._row(runner, self._usage_now())

    def _find(self, name: str) -> Runner:
        runner = self._runners.get(name)
        if runner is None:
            near = difflib.get_close_matches(name, self._runners, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `orion script list` shows all"
            raise NotFound(f"Script not found: {name}{hint}")
        return runner

    def names(self) -> list[str]:
        """Return all script names in the file's order."""
        return list(self._runners)

    def names_of_source(self, source: str | None) -> list[str]:
        """Return the scripts whose lines go under a source; all for None."""
        return [name for name, runner in self._runners.items() if source is None or runner.source == source]

    def cwd_of_source(self, source: str) -> str | None:
        """Return the folder of the script behind a source."""
        for runner in self._runners.values():
            if runner.source == source:
                return runner.config.cwd
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per script."""
        usage = self._usage_now()
        return [self._row(runner, usage) for runner in self._runners.values()]

    def show(self, name: str) -> dict[str, Any]:
        """Return a script's row, definition, process tree and last lines."""
        runner = self._find(name)
        row = self._row(runner, self._usage_now())
        members = runner.process.members() if runner.process is not None and runner.life.tree else []
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
        definition = msgspec.to_builtins(runner.config)
        return {**row, "definition": definition, "tree": tree, "lastLines": list(runner.last_lines)}

    def add(self, config: ScriptConfig) -> dict[str, Any]:
        """Register a script in the file and start it if enabled; returns its row.

        A script that then cannot be started stays registered: its row says why.

        Raises:
            Exists: the name is taken.
            ConfigError: folder or user do not exist, or the file cannot be written.
        """
        with self._editing:
            if config.name in self._runners:
                raise Exists(
                    f"cannot add {config.name}: there is a script of this name; use `orion script set` to change it"
                )
            check_script_target(config)
            find_waves({**{n: r.config.after for n, r in self._runners.items()}, config.name: config.after})
            self._write_definitions([*self._definitions(), config])
            self._add_runner(config, None)
            runner = self._runners[config.name]
        if config.enabled:
            self._try_request(runner, Start())
        self._watch_memory()
        return self._row(runner, self._usage_now())

    def update(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change a script's definition; it is restarted when it runs and anything is different."""
        with self._editing:
            runner = self._find(name)
            if "name" in fields and fields["name"] != name:
                raise BadRequest(f"cannot rename {name}: remove it and add it under the new name")
            # From the file, not the runner: an update that is not taken up yet, or a hand's edit, shall stay.
            written = self._definitions()
            before = next((c for c in written if c.name == name), runner.config)
            config = parse_script({**msgspec.to_builtins(before), **fields})
            check_script_target(config)
            find_waves({**{n: r.config.after for n, r in self._runners.items()}, name: config.after})
            self._write_definitions([config if c.name == name else c for c in written])
        if config != runner.config:
            self._change(runner, config)
        return self._row(runner, self._usage_now())

    def _change(self, runner: Runner, config: ScriptConfig) -> None:
        active = runner.life.phase in (Phase.RUNNING, Phase.STARTING, Phase.BACKOFF)
        runner.reconfigure(config)
        if active:
            self._try_request(runner, Restart())
        self._watch_memory()

    def remove(self, name: str) -> dict[str, Any]:
        """Stop a script and take it out of the file."""
        runner = self._find(name)
        followers = [n for n, r in self._runners.items() if name in r.config.after]
        if followers:
            raise BadRequest(f"cannot remove {name}: {', '.join(followers)} start after it; change their `after` first")
        runner.request(Stop())
        with self._editing:
            if self._runners.get(name) is not runner:
                raise NotFound(f"Script not found: {name}; somebody else has removed it just now")
            self._write_definitions([c for c in self._definitions() if c.name != name])
            self._drop_runner(name)
        return {"name": name}

    def _drop_runner(self, name: str) -> None:
        runner = self._runners[name]
        if runner.life.tree or runner.life.phase is not Phase.STOPPED:
            self._try_request(runner, Stop())
        self._tasks.cancel(f"script:{name}")
        runner.stop_watching(close=True)
        del self._runners[name]
        for stream in STREAMS:
            self._around.forget(f"{name}.{stream}")
            PipeFiles(self._paths.streams, name, stream).remove()
        self._subtree.leaf(name).remove()
        self._save()

    def _definitions(self) -> Sequence[ScriptConfig]:
        return load_scripts(self._paths)

    def _write_definitions(self, configs: Sequence[ScriptConfig]) -> None:
        """Write the file in a thread: an fsync on the loop would stop every pipe for as long as the disk takes."""
        gevent.get_hub().threadpool.apply(save_scripts, (self._paths, configs))

    def reload(self) -> dict[str, list[str]]:
        """Take up scripts.json; only scripts whose definition changed are touched.

        Raises:
            ConfigError: the file is unusable; everything stays as it is.
        """
        with self._editing:
            return self._take_up(load_scripts(self._paths))

    def _take_up(self, definitions: Sequence[ScriptConfig]) -> dict[str, list[str]]:
        configs = {config.name: config for config in definitions}
        find_waves({name: config.after for name, config in configs.items()})
        removed = [name for name in self._runners if name not in configs]
        added = [name for name in configs if name not in self._runners]
        changed = [
            name for name, config in configs.items() if name in self._runners and self._runners[name].config != config
        ]
        for name in removed:
            self._drop_runner(name)
        for name in changed:
            self._change(self._runners[name], configs[name])
        for name in added:
            self._add_runner(configs[name], None)
        self._request_all([(name, Start()) for name in added if configs[name].enabled])
        self._watch_memory()
        return {"changed": changed, "added": added, "removed": removed}

    # What the scripts use

    def reports(self) -> list[ScriptReport]:
        """Return the scripts as a heartbeat has them."""
        usage = self._usage_now()
        return [
            ScriptReport(
                name=runner.name,
                source=runner.source,
                state=runner.state,  # type: ignore[arg-type]
                pid=runner.pid,
                uptimeSeconds=self._uptime_s(runner),
                restarts=runner.life.restarts,
                cpuPercent=usage.get(runner.name, Usage()).cpu_percent,
                memoryMb=usage.get(runner.name, Usage()).memory_mb,
            )
            for runner in self._runners.values()
        ]

    def _uptime_s(self, runner: Runner) -> float | None:
        if runner.pid is None or runner.started_at is None:
            return None
        return round(self._around.boottime() - runner.started_at, 1)

    def _row(self, runner: Runner, usage: Mapping[str, Usage]) -> dict[str, Any]:
        used = usage.get(runner.name, Usage())
        note = runner.note
        if runner.life.phase is Phase.STOPPED and runner.life.tree and used.pids:
            note = f"{len(used.pids)} processes left"
        next_start = runner.next_start_at
        return {
            "name": runner.name,
            "source": runner.source,
            "phase": str(runner.life.phase),
            "state": runner.state,
            "pid": runner.pid,
            "uptimeSeconds": self._uptime_s(runner),
            "restarts": runner.life.restarts,
            "crashesInARow": runner.life.crashes,
            "cpuPercent": used.cpu_percent,
            "memoryMb": used.memory_mb,
            "nextRestartSeconds": None
            if next_start is None
            else round(max(0.0, next_start - self._around.boottime()), 1),
            "lastExit": runner.last_exit,
            "note": note,
            "enabled": runner.config.enabled,
        }

    def _usage_now(self) -> Mapping[str, Usage]:
        """Return what each script's tree uses; /proc is read at most once a second."""
        now = time.monotonic()
        alive = [runner for runner in self._runners.values() if runner.process is not None and runner.life.tree]
        if now - self._usage_at < USAGE_FRESH_S and {r.name for r in alive} == set(self._usage):
            return self._usage
        self._memory_kills.look()
        try:
            census = Census.take(self._paths.socket) if alive else None
        except OSError as error:
            log.warning("cannot look at the processes: %s", error)
            return {}
        self._usage = {runner.name: self._measure(runner, census, now) for runner in alive if census is not None}
        self._usage_at = now
        return self._usage

    def _measure(self, runner: Runner, census: Census, now: float) -> Usage:
        assert runner.process is not None
        members = runner.process.members(census)
        ticks = sum(stat.cpu_ticks for stat in members)
        before = self._cpu_before.get(runner.name)
        self._cpu_before[runner.name] = (now, ticks)
        percent = None
        if before is not None and ticks >= before[1] and now > before[0]:
            percent = round((ticks - before[1]) / CLOCK_TICKS / (now - before[0]) * 100, 1)
        return Usage(
            pids=tuple(stat.pid for stat in members),
            cpu_percent=percent,
            memory_mb=round(total_rss_bytes(members) / MIB, 1),
        )

    def _watch_memory(self) -> None:
        """Sample trees only while some script has a limit."""
        if self._memory_watch is None and any(r.config.maxMemoryMb for r in self._runners.values()):
            self._memory_watch = self._tasks.spawn("memory limits", self._check_memory)

    def _check_memory(self) -> None:
        while any(r.config.maxMemoryMb for r in self._runners.values()):
            gevent.sleep(MEMORY_CHECK_S)
            census = Census.take(self._paths.socket)
            for runner in list(self._runners.values()):
                limit_mb = runner.config.maxMemoryMb
                if limit_mb is None or runner.process is None or runner.life.phase is not Phase.RUNNING:
                    continue
                used_mb = total_rss_bytes(runner.process.members(census)) / MIB
                if used_mb > limit_mb:
                    log.warning("%s uses %.0f MiB, its limit is %d: ending it", runner.name, used_mb, limit_mb)
                    runner.end_over_memory()
        self._memory_watch = None

    def reap(self) -> None:
        """Reap orphans that were left to this process; call on SIGCHLD."""
        reap_orphans(self._main_pids())

    def _main_pids(self) -> set[int]:
        return {r.pid for r in self._runners.values() if r.pid is not None}

    def to_record(self) -> StateRecord:
        """Return what a next agent needs to take the scripts back."""
        return StateRecord(
            version=STATE_VERSION,
            boot_id=self._boot_id,
            agent_pid=os.getpid(),
            scripts=[runner.to_record() for runner in self._runners.values()],
        )

    def _save(self) -> None:
        """Write the record. A failure is logged: the scripts matter more than the record."""
        if self._frozen:
            return
        try:
            save_state(self._paths.state, self.to_record())
        except OSError as error:
            log.error(
                "cannot write %s: %s; a restart of the agent would not find its scripts",
                self._paths.state,
                error,
            )
