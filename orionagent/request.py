"""Owns one command on its way: what it was asked, whom it asks, how it answers, its exit code.

Must not know any single command.
"""

import os
from contextlib import suppress
from typing import Any

from orionagent import render
from orionagent.errors import NotRunning, OrionError
from orionagent.fastpath import terminal, write_all
from orionagent.ipc import client
from orionagent.output import put
from orionagent.paths import Paths
from orionagent.text import ESCAPES

DONE, FAILED, USAGE, NOT_RUNNING, NOT_PERMITTED = range(5)
EXIT_CODES = {"not-running": NOT_RUNNING, "not-permitted": NOT_PERMITTED, "bad-request": USAGE, "usage": USAGE}
INTERRUPTED = 130
UNSAFE_IN_JSON = {code: f"\\u{code:04x}" for code in ESCAPES if code >= 0x20}


class Request:
    """One command on its way: docopt's mapping, where the daemon is, what standard output can show."""

    def __init__(self, options: dict[str, Any], paths: Paths) -> None:
        self.options = options
        self.paths = paths
        self.wants_json = bool(options["--json"])
        self.color, self.columns = terminal()

    def call(self, cmd: str, **params: Any) -> Any:
        """Ask the daemon; blocks until it has answered. Raises OrionError."""
        return client.call(self.paths.socket, cmd, **params)

    def show(self, data: object, text: str) -> int:
        """Print `data` as one JSON line where that is wanted, else `text`."""
        put(json_line(data) if self.wants_json else text)
        return DONE


def json_line(data: object) -> str:
    """Return one line of JSON that is safe to show on a terminal."""
    import json  # noqa: PLC0415

    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(UNSAFE_IN_JSON) + "\n"


def report(message: str, code: str, status: int, wants_json: bool) -> int:
    """Say what went wrong as `tell` does; return `status`, which tells even where nobody reads the words."""
    with suppress(OSError, OrionError):
        tell(message, code, wants_json)
    return status


def tell(message: str, code: str, wants_json: bool) -> None:
    """Say what went wrong on standard error (and as JSON on standard output). Raises OSError, and as `put`."""
    try:
        if wants_json:
            put(json_line({"error": message, "code": code}))
    finally:
        color = os.isatty(2) and not os.environ.get("NO_COLOR")
        write_all(2, render.render_error(message, color=color))


def not_running(error: NotRunning) -> str:
    """Return the line about a daemon that does not answer: why, and how to start it."""
    root = os.environ.get("ORION_ROOT")
    how = f"ORION_ROOT={root} orion daemon --foreground" if root else "sudo systemctl start orion-agent"
    return f"{error.message.split(';')[0]}; start the daemon with: {how}"


def report_error(error: OrionError, wants_json: bool) -> int:
    """Say what a failed call says; return the exit code of its kind."""
    if isinstance(error, NotRunning):
        return report(not_running(error), error.code, NOT_RUNNING, wants_json)
    return report(error.message, error.code, EXIT_CODES.get(error.code, FAILED), wants_json)
