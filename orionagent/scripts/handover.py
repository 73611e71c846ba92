"""Owns the record of the scripts that outlives this process image.

Knows nothing of how scripts are run: it writes and reads plain records. Planned replacement (re-exec) and restart
after a kill arrive by this one door: the state file says which processes were ours, start times and the boot id
guard against reused pids, and descriptors that came along are found by name.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orionagent.files import write_atomic
from orionagent.scripts.kernel import create_memfd
from orionagent.systemd import listen_fds

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
    def from_environment(cls) -> "Inherited":
        """Collect what a service manager or the image before this one passed on."""
        found = {}
        for name, fd in listen_fds():
            os.set_inheritable(fd, False)
            if name in found:
                os.close(fd)
            else:
                found[name] = fd
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
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    if record.version != STATE_VERSION or record.boot_id != boot_id:
        return None
    return record
