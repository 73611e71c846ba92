"""Owns the record of the scripts that outlives this process image.

Knows nothing of how scripts are run: it writes and reads plain records. Planned replacement (re-exec) and restart
after a kill arrive by this one door: the state file says which processes were ours, start times and the boot id
guard against reused pids, and descriptors that came along are found by name.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from orionagent.config import ScriptConfig
from orionagent.files import write_atomic
from orionagent.scripts.kernel import create_memfd
from orionagent.systemd import listen_fds

log = logging.getLogger(__name__)

STATE_VERSION = 1


class ScriptRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One script as of the last change. Times are seconds of CLOCK_BOOTTIME."""

    name: str
    definition: dict[str, Any]
    phase: str
    crashes: int = 0
    restarts: int = 0
    tree: bool = False
    again: bool = False
    pid: int | None = None
    start_ticks: int | None = None
    started_at: float | None = None
    next_start_at: float | None = None
    last_exit: dict[str, Any] | None = None


def read_definition(record: ScriptRecord) -> ScriptConfig:
    """Return the definition a script runs by; what another version wrote and this one cannot read is left out.

    An agent that was rolled back must take the scripts of the newer one back all the same.
    """
    try:
        return msgspec.convert(record.definition, ScriptConfig)
    except msgspec.ValidationError:
        known = {}
        for field in msgspec.structs.fields(ScriptConfig):
            value = record.definition.get(field.encode_name, msgspec.UNSET)
            if value is not msgspec.UNSET and _is_usable(value, field.type):
                known[field.encode_name] = value
        return msgspec.convert({"command": "false", **known, "name": record.name}, ScriptConfig)


def _is_usable(value: object, wanted: object) -> bool:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return False
    return True


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a next agent needs to take the scripts back; readers skip fields they do not know."""

    version: int
    boot_id: str
    agent_pid: int
    scripts: Sequence[ScriptRecord] = ()


class Inherited:
    """Descriptors that came with this process image, by name. Each is taken once."""

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        self._descriptors = dict(descriptors)

    @classmethod
    def from_environment(cls, passed_on: Mapping[str, int]) -> "Inherited":
        """Collect what a service manager gave, and what the image before this one `passed_on`, which goes first.

        Takes LISTEN_* out of the environment: to the next image of this process those numbers mean other files.
        """
        found = dict(passed_on)
        for name, fd in listen_fds():
            if name in found:
                os.close(fd)  # systemd gives the newest of a name first
            else:
                found[name] = fd
        for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(variable, None)
        return cls(found)

    def __repr__(self) -> str:
        return f"Inherited({sorted(self._descriptors)})"

    def take(self, name: str) -> int | None:
        """Return the descriptor of this name and give up ownership; None when there is none."""
        return self._descriptors.pop(name, None)

    def close_rest(self) -> list[str]:
        """Close what nobody took; return the names."""
        names = sorted(self._descriptors)
        for fd in self._descriptors.values():
            os.close(fd)
        self._descriptors.clear()
        return names


def _keep_nowhere(_name: str, _fd: int) -> None:
    """Stand in for a descriptor store where there is none."""


def _forget_nothing(_name: str) -> None:
    """Stand in for a descriptor store where there is none."""


class Descriptors(msgspec.Struct, frozen=True, kw_only=True):
    """The way of named descriptors from one agent to the next.

    `take` gives what the one before left (None: nothing), `keep` has a copy kept outside this process (systemd's
    store), `forget` takes that back.
    """

    take: Callable[[str], int | None]
    keep: Callable[[str, int], None] = _keep_nowhere
    forget: Callable[[str], None] = _forget_nothing


def save_state(path: str, record: StateRecord) -> None:
    """Write the record by rename. No fsync: it is worthless after a reboot.

    Raises:
        OSError: the runtime folder cannot be written.
    """
    write_atomic(path, msgspec.json.encode(record), mode=0o600, sync=False)


def pack_state(record: StateRecord) -> int:
    """Return a memfd that holds the record, for the next image of this process: no file system can refuse it."""
    fd = create_memfd("orion-state")
    os.write(fd, msgspec.json.encode(record))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def load_state(path: str, boot_id: str, packed: int | None = None) -> StateRecord | None:
    """Return the record of an earlier agent of this boot; None when there is none that can be trusted.

    `packed` is the memfd of the image before this one, which knows more than the file; it is closed here.
    """
    try:
        with open(path if packed is None else packed, "rb") as file:
            record = msgspec.json.decode(file.read(), type=StateRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.error("cannot read %s: %s; scripts that run already are not taken back", path, error)
        return None
    if record.version != STATE_VERSION or record.boot_id != boot_id:
        return None
    return record
