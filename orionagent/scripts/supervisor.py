"""Owns `Supervisor`: the scripts as the rest of the agent has them, and the order in which they start and stop.

Knows nothing of logs, metrics or the command line: lines and alerts leave through `emit` and `alert`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orionagent.config import ScriptConfig
from orionagent.paths import Paths
from orionagent.scripts.cgroup import MemoryKills, Subtree
from orionagent.scripts.editing import Editor
from orionagent.scripts.fleet import Fleet, Wish
from orionagent.scripts.handover import Descriptors, ScriptRecord, StateRecord, read_definition
from orionagent.scripts.lifecycle import Restart, Start, Stop
from orionagent.scripts.order import find_waves
from orionagent.scripts.redact import Redactor
from orionagent.scripts.view import make_report, make_row, make_view
from orionagent.tasks import TaskFailed
from orionagent.wire import Alert, Batch, ScriptReport


class Supervisor:
    """All scripts of one agent. Sole writer of the start and stop order.

    `emit` takes lines and returns once they may leave their pipe; `offsets` says what of which pipe the buffer
    holds already; `descriptors` are those that outlive an agent; `subtree` is where scripts get cgroups of their
    own; `memory_kills` tells of the kernel's out-of-memory killer.
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
        on_failure: Callable[[TaskFailed], None] | None = None,
        subtree: Subtree | None = None,
        memory_kills: MemoryKills | None = None,
    ) -> None:
        self._fleet = Fleet(
            paths,
            hostname=hostname,
            emit=emit,
            alert=alert,
            offsets=offsets,
            redactor=redactor,
            descriptors=descriptors,
            on_failure=on_failure,
            subtree=subtree or Subtree(None),
            memory_kills=memory_kills or MemoryKills(None, time.monotonic),
        )
        self._editor = Editor(paths, self._fleet)
        self._to_start: dict[str, Start | Restart] = {}

    def __repr__(self) -> str:
        return f"Supervisor({self._fleet})"

    # Start and stop

    def start_all(self, configs: Sequence[ScriptConfig]) -> None:
        """Take back what runs already, then start the enabled rest wave by wave; returns when each was tried."""
        self.take_back(configs)
        self.start_rest()

    def take_back(self, configs: Sequence[ScriptConfig]) -> None:
        """Make the script map, with what an earlier agent left running in it; never yields to other greenlets.

        From here on whatever runs is ours to stop, also when the start is broken off.
        """
        state = self._fleet.state
        known = {record.name: record for record in state.scripts} if state is not None else {}
        find_waves({config.name: config.after for config in configs})  # before anything is taken in
        for config in configs:
            record = known.pop(config.name, None)
            self._fleet.add(config, record)
            if record is None:
                self._to_start[config.name] = Start()
            elif record.pid is not None and read_definition(record) != config:
                self._to_start[config.name] = Restart()
        self._end_unknown(known.values())
        self._fleet.begin_record()

    def _end_unknown(self, records: Iterable[ScriptRecord]) -> None:
        """Stop what an earlier agent ran and the file no longer names."""
        for record in records:
            if record.pid is not None:
                self._fleet.add(read_definition(record), record)
                self._fleet.tasks.spawn(f"remove:{record.name}", self._fleet.drop, record.name)

    def start_rest(self) -> None:
        """Start what is enabled and was not taken back, and restart what was changed meanwhile, wave by wave."""
        wishes, self._to_start = self._to_start, {}
        for wave in self._waves():
            self._fleet.request_all([(name, wishes[name]) for name in wave if self._is_due(name, wishes.get(name))])

    def _is_due(self, name: str, wish: Start | Restart | None) -> bool:
        runner = self._fleet.get(name)
        if wish is None or runner is None:  # removed while earlier waves started
            return False
        return isinstance(wish, Restart) or runner.config.enabled

    def stop_all(self) -> None:
        """Stop all scripts in waves, the reverse of the start; returns when every tree is empty or timed out.

        Nothing can be started any more from here on.
        """
        self._fleet.refuse_starts()
        for wave in reversed(self._waves()):
            self._fleet.request_all([(name, Stop()) for name in wave], at_once=max(1, len(wave)))

    def stop_limit_s(self) -> float:
        """Return how long `stop_all` may take by the scripts' own stop timeouts."""
        limits_ms = {runner.name: runner.config.stopTimeout for runner in self._fleet}
        return sum(max((limits_ms[name] for name in wave), default=0) for wave in self._waves()) / 1000

    def _waves(self) -> list[list[str]]:
        orders = self._fleet.orders()
        return find_waves({name: [other for other in after if other in orders] for name, after in orders.items()})

    def let_go(self, *, close: bool) -> None:
        """Stop moving lines and taking events, and leave the processes alone.

        With `close` all descriptors are closed, else they stay open for the next image of this process.
        """
        self._fleet.let_go(close=close)

    def last_known(self) -> Sequence[ScriptConfig]:
        """Return the definitions that an earlier agent of this boot ran by; () when there was none."""
        return self._fleet.last_definitions()

    def to_record(self) -> StateRecord:
        """Return what a next agent needs to take the scripts back."""
        return self._fleet.to_record()

    def forget_state(self) -> None:
        """Delete the record after a clean stop, so that the next start follows `enabled` only."""
        self._fleet.forget_state()

    def reap(self) -> None:
        """Reap orphans that were left to this process; call on SIGCHLD."""
        self._fleet.reap()

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

    def _ask(self, name: str, wish: Wish) -> dict[str, Any]:
        runner = self._fleet.find(name)
        runner.request(wish)
        return make_row(runner, self._fleet.usage())

    def add(self, config: ScriptConfig) -> dict[str, Any]:
        """Register a script in the file and start it if enabled; returns its row.

        A script that then cannot be started stays registered: its row says why.

        Raises:
            Exists: the name is taken.
            ConfigError: folder or user do not exist, or the file cannot be written.
        """
        return make_row(self._editor.add(config), self._fleet.usage())

    def update(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change a script's definition; it is restarted when it runs."""
        return make_row(self._editor.update(name, fields), self._fleet.usage())

    def remove(self, name: str) -> dict[str, Any]:
        """Stop a script and take it out of the file."""
        self._editor.remove(name)
        return {"name": name}

    def reload(self) -> dict[str, list[str]]:
        """Take up scripts.json; only scripts whose definition changed are touched.

        Raises:
            ConfigError: the file is unusable; everything stays as it is.
        """
        return self._editor.reload()

    def rename_host(self, hostname: str) -> None:
        """Let alerts carry another hostname from the next one on."""
        self._fleet.rename_host(hostname)

    # Looks

    def names_of_source(self, source: str | None) -> list[str]:
        """Return the scripts whose lines go under a source; all for None."""
        return [runner.name for runner in self._fleet if source is None or runner.source == source]

    def cwd_of_source(self, source: str) -> str | None:
        """Return the folder of the script behind a source."""
        return next((runner.config.cwd for runner in self._fleet if runner.source == source), None)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per script."""
        usage = self._fleet.usage()
        return [make_row(runner, usage) for runner in self._fleet]

    def show(self, name: str) -> dict[str, Any]:
        """Return a script's row, definition, process tree and last lines."""
        return make_view(self._fleet.find(name), self._fleet.usage())

    def reports(self) -> list[ScriptReport]:
        """Return the scripts as a heartbeat has them."""
        usage = self._fleet.usage()
        return [make_report(runner, usage) for runner in self._fleet]
