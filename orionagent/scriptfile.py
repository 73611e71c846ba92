"""Owns scripts.json: the shape and the rules of a script, read strictly and written so that a person's hand shows.

Knows nothing of who runs the scripts. Unknown keys are an error that names the nearest known one.
"""

import grp
import os
import pwd
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orionagent import jsonfile
from orionagent.errors import ConfigError
from orionagent.files import read_guarded, write_atomic
from orionagent.paths import Paths

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SOURCE = re.compile(r"[a-z0-9_-]+")
LEVELS = ("trace", "verbose", "debug", "info", "warn", "error", "fatal")
GUIDE_KEYS = ("name", "command", "cwd", "autoRestart", "maxRestarts", "backoffBase", "captureOutput")
LONGEST_MS = 24 * 3600 * 1000


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"as_": "as"}):
    """Resource limits of a script: open files, core file bytes, address space bytes."""

    nofile: int | None = None
    core: int | None = None
    as_: int | None = None


class ScriptConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One managed script. Durations are milliseconds; `source` None means the name."""

    name: str
    command: str
    cwd: str | None = None
    autoRestart: bool = True
    maxRestarts: int = 5
    backoffBase: int = 1000
    captureOutput: bool = True
    source: str | None = None
    enabled: bool = True
    user: str | None = None
    group: str | None = None
    env: Mapping[str, str] = {}
    envFile: str | None = None
    umask: str | None = None
    nice: int | None = None
    limits: Limits | None = None
    stopSignal: str = "TERM"
    stopTimeout: int = 10_000
    minUptime: int = 10_000
    maxMemoryMb: int | None = None
    stderrLevel: str = "error"
    multiline: bool = True
    after: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"ScriptConfig(name={self.name!r}, command={self.command!r}, cwd={self.cwd!r}, ...)"


STRUCTS = (ScriptConfig, Limits)


def load_scripts(paths: Paths) -> tuple[ScriptConfig, ...]:
    """Read scripts.json, a list of commands to run; a missing file gives none.

    Raises:
        ConfigError: it cannot be read or used, or somebody else could have written it.
    """
    _, scripts = _load(paths)
    return scripts


def parse_script(fields: Mapping[str, Any]) -> ScriptConfig:
    """Check one script given by its fields.

    Raises:
        ConfigError: a field is unknown (the nearest is named), missing or malformed.
    """
    script = jsonfile.convert(fields, ScriptConfig, "the script", structs=STRUCTS)
    _check_script(script, "the script")
    return script


def save_scripts(paths: Paths, scripts: Sequence[ScriptConfig]) -> None:
    """Write scripts.json; what a person wrote keeps the order and spelling of its keys as long as it still holds.

    Blocks for the disk.

    Raises:
        ConfigError: the file cannot be written, is malformed or untrusted as it stands, or two names are equal;
            nothing was changed.
    """
    written, _ = _load(paths)
    _check_names(scripts, paths.scripts)
    hands = {fields["name"]: fields for fields in written or ()}
    rows = [jsonfile.amend(hands.get(s.name, {}), s, () if s.name in hands else GUIDE_KEYS) for s in scripts]
    try:
        write_atomic(paths.scripts, jsonfile.dump(rows), mode=0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {paths.scripts}: {error.strerror}; nothing was changed") from error


def _load(paths: Paths) -> tuple[list[dict[str, Any]] | None, tuple[ScriptConfig, ...]]:
    """Return what is written in the file, None without one, and what it means."""
    data = read_guarded(paths.scripts, for_commands=True)
    if data is None:
        return None, ()
    written = jsonfile.parse(data, paths.scripts)
    scripts = jsonfile.convert(written, tuple[ScriptConfig, ...], paths.scripts, structs=STRUCTS)
    for index, script in enumerate(scripts):
        _check_script(script, f"{paths.scripts}, script {index + 1}")
    _check_names(scripts, paths.scripts)
    return written, scripts


def _check_names(scripts: Sequence[ScriptConfig], path: str) -> None:
    seen: set[str] = set()
    for script in scripts:
        if script.name in seen:
            raise ConfigError(f"cannot use {path}: two scripts are called {script.name!r}; rename one")
        seen.add(script.name)


def check_script_target(script: ScriptConfig) -> None:
    """Check that a script's folder, user and group exist, as is asked of a script that is being added.

    Raises:
        ConfigError: one of them does not.
    """
    if script.cwd is not None and not os.path.isdir(script.cwd):
        raise ConfigError(
            f"cannot add {script.name}: no folder {script.cwd}; make it or give another --cwd",
            code="not-found",
        )
    if script.user is not None:
        try:
            pwd.getpwnam(script.user)
        except KeyError:
            raise ConfigError(
                f"cannot add {script.name}: no user {script.user!r} on this server", code="not-found"
            ) from None
    if script.group is not None:
        try:
            grp.getgrnam(script.group)
        except KeyError:
            raise ConfigError(
                f"cannot add {script.name}: no group {script.group!r} on this server", code="not-found"
            ) from None


def _check_script(script: ScriptConfig, where: str) -> None:
    def need(holds: bool, key: str, rule: str) -> None:
        if not holds:
            raise ConfigError(f"cannot use {where}: {key} must be {rule}")

    need(
        bool(NAME.fullmatch(script.name)) and len(script.name) <= 64,
        f"name {script.name!r}",
        "lowercase letters, digits and single hyphens, at most 64",
    )
    need(bool(script.command.strip()), "command", "a shell command")
    need(script.cwd is None or os.path.isabs(script.cwd), "cwd", "an absolute path")
    source = script.source or script.name
    need(
        bool(SOURCE.fullmatch(source)) and len(source) <= 64 and source != "all",
        f"source {source!r}",
        "lowercase letters, digits, _ and -, at most 64, and not 'all', which means every source",
    )
    for key in ("source", "user", "group", "envFile"):
        need(getattr(script, key) != "", key, "given or left out")
    need(script.maxRestarts >= 0, "maxRestarts", "0 or more")
    for key in ("backoffBase", "stopTimeout", "minUptime"):
        need(0 <= getattr(script, key) <= LONGEST_MS, key, "0 to 86400000 (milliseconds, a day)")
    need(script.maxMemoryMb is None or script.maxMemoryMb >= 1, "maxMemoryMb", "1 or more")
    signal_name = f"SIG{script.stopSignal.removeprefix('SIG')}"
    need(
        signal_name in signal.Signals.__members__ and signal_name != "SIGSTOP",
        f"stopSignal {script.stopSignal!r}",
        "the name of a signal that ends it, such as TERM or INT",
    )
    need(script.stderrLevel in LEVELS, f"stderrLevel {script.stderrLevel!r}", f"one of {', '.join(LEVELS)}")
    need(
        script.umask is None or bool(re.fullmatch(r"0?[0-7]{3}", script.umask)),
        "umask",
        'three octal digits as text, such as "022"',
    )
    need(script.nice is None or -20 <= script.nice <= 19, "nice", "-20 to 19")
    limits = script.limits or Limits()
    for key, value in (("nofile", limits.nofile), ("core", limits.core), ("as", limits.as_)):
        need(value is None or 0 <= value < 1 << 63, f"limits.{key}", "0 or more")
    for key in script.env:
        need(bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", key)), f"env: the name {key!r}", "letters, digits and _")
    for name in script.after:
        need(bool(NAME.fullmatch(name)) and name != script.name, f"after: {name!r}", "the name of another script")
    texts = (script.command, script.cwd, script.envFile, script.user, script.group, *script.env.values())
    need(not any("\0" in text for text in texts if text), "every field", "free of NUL characters")
