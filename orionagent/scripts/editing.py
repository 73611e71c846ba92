"""Owns changes to the definitions: by command, and by hand in scripts.json.

Knows nothing of what else is in force: a change is checked, written and then taken up by the fleet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from orionagent.config import ScriptConfig, check_script_target, load_scripts, parse_script, save_scripts
from orionagent.errors import BadRequest, Exists, NotFound
from orionagent.paths import Paths
from orionagent.scripts.fleet import Fleet
from orionagent.scripts.lifecycle import Start, Stop
from orionagent.scripts.order import find_waves
from orionagent.scripts.runner import Runner


class Editor:
    """Sole writer of scripts.json; one change at a time. Every method blocks until the scripts have followed."""

    def __init__(self, paths: Paths, fleet: Fleet) -> None:
        self._paths = paths
        self._fleet = fleet
        self._turn = BoundedSemaphore(1)

    def __repr__(self) -> str:
        return f"Editor({self._paths.scripts!r})"

    def add(self, config: ScriptConfig) -> Runner:
        """Register a script and start it if enabled. One that cannot be started stays registered.

        Raises:
            Exists: the name is taken.
            ConfigError: folder or user do not exist, or the file cannot be written.
        """
        with self._turn:
            if config.name in self._fleet:
                raise Exists(
                    f"cannot add {config.name}: there is a script of this name; use `orion script set` to change it"
                )
            self._check(config)
            self._write([*load_scripts(self._paths), config])
            runner = self._fleet.add(config)
        if config.enabled:
            self._fleet.try_request(runner, Start())
        return runner

    def update(self, name: str, fields: Mapping[str, Any]) -> Runner:
        """Change some fields of a definition; a script that runs is restarted if anything is different.

        Raises:
            NotFound: no such script.
            BadRequest: the name cannot be changed.
            ConfigError: a field is not usable, or the file cannot be written.
        """
        with self._turn:
            runner = self._fleet.find(name)
            if "name" in fields and fields["name"] != name:
                raise BadRequest(f"cannot rename {name}: remove it and add it under the new name")
            # From the file, not the runner: an update that is not taken up yet, or a hand's edit, shall stay.
            written = load_scripts(self._paths)
            before = next((c for c in written if c.name == name), runner.config)
            config = parse_script({**msgspec.to_builtins(before), **fields})
            self._check(config)
            self._write([config if c.name == name else c for c in written])
        if config != runner.config:
            self._fleet.change(runner, config)
        return runner

    def remove(self, name: str) -> None:
        """Stop a script and take it out of the file.

        Raises:
            NotFound: no such script.
            BadRequest: others start after it.
            Timeout: it does not end.
        """
        runner = self._fleet.find(name)
        followers = [follower for follower, after in self._fleet.orders().items() if name in after]
        if followers:
            raise BadRequest(f"cannot remove {name}: {', '.join(followers)} start after it; change their `after` first")
        runner.request(Stop())
        with self._turn:
            if self._fleet.get(name) is not runner:
                raise NotFound(f"Script not found: {name}; somebody else has removed it just now")
            self._write([c for c in load_scripts(self._paths) if c.name != name])
            self._fleet.drop(name)

    def reload(self) -> dict[str, list[str]]:
        """Take up what the file says now; only scripts whose definition changed are touched.

        Raises:
            ConfigError: the file is unusable; everything stays as it is.
        """
        with self._turn:
            return self._take_up(load_scripts(self._paths))

    def _take_up(self, definitions: Sequence[ScriptConfig]) -> dict[str, list[str]]:
        fleet = self._fleet
        configs = {config.name: config for config in definitions}
        find_waves({name: config.after for name, config in configs.items()})
        removed = [name for name in fleet.names() if name not in configs]
        added = [name for name in configs if name not in fleet]
        changed = [name for name, config in configs.items() if name in fleet and fleet.find(name).config != config]
        for name in removed:
            fleet.drop(name)
        for name in changed:
            fleet.change(fleet.find(name), configs[name])
        for name in added:
            fleet.add(configs[name])
        fleet.request_all([(name, Start()) for name in added if configs[name].enabled])
        return {"changed": changed, "added": added, "removed": removed}

    def _check(self, config: ScriptConfig) -> None:
        check_script_target(config)
        find_waves({**self._fleet.orders(), config.name: config.after})

    def _write(self, configs: Sequence[ScriptConfig]) -> None:
        """Write the file in a thread: an fsync on the loop would stop every pipe for as long as the disk takes."""
        gevent.get_hub().threadpool.apply(save_scripts, (self._paths, configs))
