"""Owns how the set-up's script comes to run: what is registered already, the daemon or the file, the first output.

Must not know how a person is asked, nor how the daemon runs a script.
"""

import os
import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from orionagent.config import ScriptConfig, load_scripts, save_scripts
from orionagent.errors import NotPermitted, NotRunning, OrionError
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.render import render_entries, render_outcome

# What the set-up decides; every other field stays as somebody has set it.
DECIDED = ("name", "command", "cwd", "autoRestart", "captureOutput", "user", "source")
FIRST_OUTPUT_S = 5.0
FIRST_OUTPUT_LINES = 10
Say = Callable[[str], None]


def find_registered(paths: Paths, folder: str) -> ScriptConfig | None:
    """Return the first script that is registered for a folder, as far as this user may know.

    Raises:
        ConfigError: scripts.json cannot be used.
    """
    if os.path.exists(paths.scripts) and not os.access(paths.scripts, os.R_OK):
        return None
    return next((script for script in load_scripts(paths) if script.cwd == folder), None)


def register_script(script: ScriptConfig, say: Say, paths: Paths) -> None:
    """Register the script with the daemon, or in the file where none runs; start it and show its first output.

    Raises:
        NotPermitted: this user may not; the message is the line to type.
        ConfigError: the file cannot be written.
        OrionError: what the daemon refuses.
    """
    fields = _decided(script)
    began = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        try:
            row = client.call(paths.socket, "script:add", **fields)
        except OrionError as error:
            if error.code != "exists":
                raise
            rest = {key: value for key, value in fields.items() if key != "name"}
            row = client.call(paths.socket, "script:update", name=script.name, fields=rest)
        if row.get("phase") not in ("running", "starting"):
            client.call(paths.socket, "script:start", name=script.name)
    except NotRunning:
        save_in_file(script, say, paths)
    except OrionError as error:
        if error.code != "not-permitted":
            raise
        raise _not_permitted(script, paths) from None
    else:
        show_start(script, began, say, paths)


def _decided(script: ScriptConfig) -> dict[str, Any]:
    return {key: value for key in DECIDED if (value := getattr(script, key)) is not None}


def save_in_file(script: ScriptConfig, say: Say, paths: Paths) -> None:
    """Register the script in scripts.json for the next start of the daemon. Raises NotPermitted, ConfigError."""
    if not os.access(paths.etc, os.W_OK | os.X_OK):
        raise _not_permitted(script, paths)
    scripts = {each.name: each for each in load_scripts(paths)}
    known = scripts.get(script.name)
    scripts[script.name] = script if known is None else msgspec.structs.replace(known, **_decided(script))
    save_scripts(paths, list(scripts.values()))
    say(f"Written: {paths.scripts}")
    say(f"{script.name} starts with the daemon, which is not running; start it with: {start_line(paths)}")


def start_line(paths: Paths) -> str:
    """Return what starts the daemon."""
    if paths.root != "/":
        return shlex.join([f"ORION_ROOT={paths.root}", "orion", "daemon", "--foreground"])
    return "sudo systemctl enable --now orion-agent"


def sudo_line(words: list[str], paths: Paths) -> str:
    """Return the line that runs an `orion` command with more rights; sudo would drop ORION_ROOT by itself."""
    return shlex.join(["sudo", *([f"ORION_ROOT={paths.root}"] if paths.root != "/" else []), "orion", *words])


def registering_words(script: ScriptConfig, *, is_known: bool) -> list[str]:
    """Return the `orion` command that registers the script, or changes the one of this name."""
    if is_known:
        fields = {key: value for key, value in _decided(script).items() if key != "name"}
        shown = {True: "true", False: "false"}
        return ["script", "set", script.name, *(f"{key}={shown.get(value, value)}" for key, value in fields.items())]
    words = ["script", "add", script.name, script.command, f"--cwd={script.cwd}"]
    words += [f"--user={script.user}"] if script.user else []
    words += ["--no-auto-restart"] if not script.autoRestart else []
    words += ["--no-capture"] if not script.captureOutput else []
    return words + ([f"--set=source={script.source}"] if script.source else [])


def _not_permitted(script: ScriptConfig, paths: Paths) -> NotPermitted:
    is_readable = os.access(paths.scripts, os.R_OK)
    is_known = is_readable and any(each.name == script.name for each in load_scripts(paths))
    line = sudo_line(registering_words(script, is_known=is_known), paths)
    return NotPermitted(f"cannot register {script.name}: permission denied; run:\n{line}")


def show_start(script: ScriptConfig, began: str, say: Say, paths: Paths) -> None:
    """Show the script's state and its first lines since `began`, waiting a little for them. Raises OrionError."""
    deadline = time.monotonic() + (FIRST_OUTPUT_S if script.captureOutput else 0.0)
    entries: list[dict[str, Any]] = []
    while not entries and time.monotonic() < deadline:
        time.sleep(0.2)
        known = client.call(paths.socket, "logs:tail", name=script.name, lines=FIRST_OUTPUT_LINES)["entries"]
        entries = [entry for entry in known if entry["timestamp"] >= began]
    row = client.call(paths.socket, "script:show", name=script.name)
    say(render_outcome(row).rstrip("\n"))
    if entries:
        say(render_entries(entries).rstrip("\n"))
    elif script.captureOutput:
        say(f"It has printed nothing in {FIRST_OUTPUT_S:g} s.")
    say(f"Follow it with: orion logs {script.name} --follow")
