"""Owns how words of the command line become values: `--env=K=V`, `maxRestarts=3`, `--cwd=here`, `--lines=9`.

Must not know which fields and values are good: the daemon decides that.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from orionagent.usage import UsageError

# Their values are text whatever they look like; every other value is read as JSON where it is JSON.
TEXT_FIELDS = {
    "name", "command", "cwd", "source", "user", "group", "envFile", "umask", "stopSignal", "stderrLevel",
}  # fmt: skip
PATH_FIELDS = {"cwd", "envFile"}
RING_LINES = 1000  # what the daemon keeps of each script


def split_pair(text: str, what: str) -> tuple[str, str]:
    """Return both sides of the first `=`. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"cannot read {what} {text!r}: no '='; write {what} as <name>=<value>")
    return key, value


def parse_assignments(words: Sequence[str], cwd: Callable[[], str]) -> dict[str, Any]:
    """Return the fields that `field=value` words set; an empty value is None: back to the default.

    Paths become absolute: relative ones start at `cwd()`.

    Raises:
        UsageError: a word without `=`, or a field given twice.
    """
    fields: dict[str, Any] = {}
    for word in words:
        key, value = split_pair(word, "field")
        if key in fields:
            raise UsageError(f"the field {key!r} is given twice")
        fields[key] = parse_value(key, value, cwd)
    return fields


def parse_value(key: str, value: str, cwd: Callable[[], str]) -> object:
    """Return what a field's text means."""
    if not value:
        return None
    if key in PATH_FIELDS:
        return absolute(value, cwd)
    if key in TEXT_FIELDS:
        return value
    import json  # noqa: PLC0415

    try:
        return json.loads(value)
    except ValueError:
        return value.split(",") if key == "after" else value


def absolute(path: str, cwd: Callable[[], str]) -> str:
    """Return `path` as seen from the shell's folder."""
    return path if path.startswith("/") else os.path.normpath(os.path.join(current(cwd), path))


def current(cwd: Callable[[], str]) -> str:
    """Return the shell's folder. Raises UsageError when it is gone."""
    try:
        return cwd()
    except FileNotFoundError:
        raise UsageError("cannot tell the current folder: it was removed; give --cwd=<path>") from None


def script_fields(options: dict[str, Any], cwd: Callable[[], str]) -> dict[str, Any]:
    """Return the fields that `orion script add` asks for.

    Raises:
        UsageError: a malformed `--env` or `--set`.
    """
    fields: dict[str, Any] = {"name": options["<name>"][0], "command": options["<command>"]}
    fields["cwd"] = absolute(options["--cwd"], cwd) if options["--cwd"] else current(cwd)
    if options["--no-auto-restart"]:
        fields["autoRestart"] = False
    if options["--no-capture"]:
        fields["captureOutput"] = False
    if options["--user"] is not None:
        fields["user"] = options["--user"]
    if options["--env"]:
        fields["env"] = dict(split_pair(pair, "--env") for pair in options["--env"])
    further = parse_assignments(options["--set"], cwd)
    for key in further:
        if key in fields and key != "cwd":
            raise UsageError(f"the field {key!r} is given twice")
    return fields | {key: value for key, value in further.items() if value is not None}


def parse_metadata(text: str) -> dict[str, Any]:
    """Return the JSON object behind `--meta`. Raises UsageError."""
    import json  # noqa: PLC0415

    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"cannot read --meta: {error}; give a JSON object") from None
    if not isinstance(found, dict):
        raise UsageError('cannot read --meta: not a JSON object; write --meta=\'{"key": "value"}\'')
    return found


def parse_lines(text: str | None) -> int:
    """Return the number behind `--lines`, 50 without it. Raises UsageError."""
    if text is None:
        return 50
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"cannot read --lines={text}: not a whole number")
    return min(int(text), RING_LINES)
