"""Owns the shape and the rules of the files a person edits: config.json, scripts.json, .orion/config.json.

Knows nothing of who uses them. Unknown keys are an error that names the nearest known one.
"""

import difflib
import grp
import os
import pwd
import re
import signal
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orionagent.errors import ConfigError
from orionagent.files import read_guarded, write_atomic
from orionagent.paths import Paths, project_config

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
API_SUFFIX = "/api/v1"
LEVELS = ("trace", "verbose", "debug", "info", "warn", "error", "fatal")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"as_": "as"}):
    """Resource limits of a script: open files, core file bytes, address space bytes."""

    nofile: int | None = None
    core: int | None = None
    as_: int | None = None


class ScriptConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One managed script. Durations are milliseconds."""

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


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The server-wide configuration. Without a token the agent supervises and buffers, but sends nothing."""

    token: str | None = None
    apiUrl: str = "https://api.orion.dev"
    heartbeatInterval: int = 30_000
    project: str | None = None
    hostname: str | None = None
    proxy: str | None = None
    caFile: str | None = None
    allowInsecure: bool = False
    remoteCommands: bool = True
    bufferMaxEntries: int = 10_000
    bufferMaxBytes: int = 64 * 1024 * 1024
    redact: Sequence[str] | None = None

    def __repr__(self) -> str:
        return f"AgentConfig(apiUrl={self.apiUrl!r}, project={self.project!r}, token={'set' if self.token else None})"


def load_agent_config(paths: Paths) -> AgentConfig:
    """Read config.json; a missing file gives the defaults.

    Raises:
        ConfigError: it cannot be read or used.
    """
    data = read_guarded(paths.config)
    if data is None:
        return AgentConfig()
    config: AgentConfig = _decode(data, AgentConfig, paths.config)
    _need(config.heartbeatInterval >= 1000, paths.config, "heartbeatInterval", "at least 1000 (milliseconds)")
    _need(config.bufferMaxEntries >= 1, paths.config, "bufferMaxEntries", "at least 1")
    _need(config.bufferMaxBytes >= 1 << 20, paths.config, "bufferMaxBytes", "at least 1048576 (1 MiB)")
    for pattern in config.redact or ():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"cannot use {paths.config}: redact: {pattern!r} is no regular expression: {error}"
            ) from error
    api_base(config, paths.config)
    return config


def load_scripts(paths: Paths) -> tuple[ScriptConfig, ...]:
    """Read scripts.json, a list of commands to run; a missing file gives none.

    Raises:
        ConfigError: it cannot be read or used, or somebody else could have written it.
    """
    data = read_guarded(paths.scripts, for_commands=True)
    if data is None:
        return ()
    scripts: tuple[ScriptConfig, ...] = _decode(data, tuple[ScriptConfig, ...], paths.scripts)
    seen: set[str] = set()
    for index, script in enumerate(scripts):
        where = f"{paths.scripts}, script {index + 1}"
        _check_script(script, where)
        if script.name in seen:
            raise ConfigError(f"cannot use {paths.scripts}: two scripts are called {script.name!r}; rename one")
        seen.add(script.name)
    return scripts


def parse_script(fields: Mapping[str, Any]) -> ScriptConfig:
    """Check one script given by its fields.

    Raises:
        ConfigError: a field is unknown (the nearest is named), missing or malformed.
    """
    script: ScriptConfig = _convert(fields, ScriptConfig, "the script")
    _check_script(script, "the script")
    return script


def save_scripts(paths: Paths, scripts: Sequence[ScriptConfig]) -> None:
    """Write scripts.json as a person would lay it out.

    Raises:
        ConfigError: the file cannot be written.
    """
    _save(paths.scripts, [_full(script) for script in scripts], mode=0o644)


def save_agent_config(paths: Paths, config: AgentConfig) -> None:
    """Write config.json, readable by its owner alone.

    Raises:
        ConfigError: the file cannot be written.
    """
    _save(paths.config, msgspec.to_builtins(config), mode=0o600)


def load_source_token(folder: str) -> str | None:
    """Return the token in an application folder's .orion/config.json, None when there is none to be read."""
    try:
        with open(project_config(folder), "rb") as file:
            fields = msgspec.json.decode(file.read(1 << 16))
    except (OSError, msgspec.MsgspecError):
        return None
    token = fields.get("token") if isinstance(fields, dict) else None
    return token if isinstance(token, str) and token else None


def api_base(config: AgentConfig, where: str = "config.json") -> str:
    """Return the address that all routes are below, ending in /api/v1.

    Raises:
        ConfigError: no address, or plain http to another machine without `allowInsecure`.
    """
    parts = urlsplit(config.apiUrl)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"cannot use {where}: apiUrl {config.apiUrl!r} is no address; give https://host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"cannot use {where}: apiUrl must be host and path only")
    if parts.scheme == "http" and not config.allowInsecure and not is_loopback(config.apiUrl):
        raise ConfigError(
            f"cannot use {where}: apiUrl {config.apiUrl!r} would send the token in clear; "
            'use https, or set "allowInsecure": true'
        )
    base = config.apiUrl.rstrip("/")
    return base if base.endswith(API_SUFFIX) else base + API_SUFFIX


def is_loopback(address: str) -> bool:
    """Tell whether an address leads to this machine, by its name alone: nothing is looked up."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def read_env_file(path: str) -> dict[str, str]:
    """Read KEY=VALUE lines: blank lines and # comments are skipped, `export ` and matching quotes are taken off.

    Raises:
        ConfigError: the file cannot be read, or a line is neither.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the environment file {path}: {error}") from error
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key.strip()):
            raise ConfigError(f"cannot use the environment file {path}, line {number}: write KEY=VALUE")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[key.strip()] = value
    return found


def _check_script(script: ScriptConfig, where: str) -> None:
    _need(bool(NAME.fullmatch(script.name)) and len(script.name) <= 64, where, f"name {script.name!r}",
          "lowercase letters, digits and single hyphens, at most 64")  # fmt: skip
    _need(bool(script.command.strip()), where, "command", "a shell command")
    _need(script.cwd is None or os.path.isabs(script.cwd), where, "cwd", "an absolute path")
    for key in ("maxRestarts", "backoffBase", "stopTimeout", "minUptime"):
        _need(getattr(script, key) >= 0, where, key, "0 or more")
    _need(script.maxMemoryMb is None or script.maxMemoryMb >= 1, where, "maxMemoryMb", "1 or more")
    _need(
        f"SIG{script.stopSignal.removeprefix('SIG')}" in signal.Signals.__members__,
        where,
        "stopSignal",
        "a signal's name, such as TERM or INT",
    )
    _need(script.stderrLevel in LEVELS, where, "stderrLevel", f"one of {', '.join(LEVELS)}")
    _need(
        script.umask is None or bool(re.fullmatch(r"0?[0-7]{3}", script.umask)),
        where,
        "umask",
        'three octal digits as text, such as "022"',
    )
    _need(script.nice is None or -20 <= script.nice <= 19, where, "nice", "-20 to 19")
    _need(
        all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) for key in script.env),
        where,
        "env",
        "names of letters, digits and _",
    )
    _need(
        not any("\0" in text for text in (script.command, *script.env.values())),
        where,
        "command and env",
        "free of NUL",
    )


def _need(holds: bool, where: str, key: str, rule: str) -> None:
    if not holds:
        raise ConfigError(f"cannot use {where}: {key} must be {rule}")


def _full(script: ScriptConfig) -> dict[str, Any]:
    """Return the guide's seven fields always, the others where they differ from their defaults."""
    fields = {
        "name": script.name,
        "command": script.command,
        "cwd": script.cwd,
        "autoRestart": script.autoRestart,
        "maxRestarts": script.maxRestarts,
        "backoffBase": script.backoffBase,
        "captureOutput": script.captureOutput,
    }
    return {**{k: v for k, v in fields.items() if v is not None}, **msgspec.to_builtins(script)}


def _save(path: str, value: object, *, mode: int) -> None:
    data = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    try:
        write_atomic(path, data, mode=mode)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; nothing was changed") from error


def _decode(data: bytes, shape: Any, path: str) -> Any:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot use {path}: not JSON: {_place(data, error)}") from error
    return _convert(value, shape, path)


def _place(data: bytes, error: Exception) -> str:
    found = re.search(r"byte (\d+)", str(error))
    if found is None:
        return str(error)
    before = data[: int(found[1])]
    line = before.count(b"\n") + 1
    column = len(before) - (before.rfind(b"\n") + 1) + 1
    return f"line {line}, column {column}: {str(error).partition(' (')[0]}"


def _convert(value: Any, shape: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        text = str(error)
        unknown = re.search(r"unknown field `([^`]*)`", text)
        if unknown is None:
            raise ConfigError(f"cannot use {where}: {_readable(text)}") from error
        known = _known_keys(shape)
        near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"cannot use {where}: unknown key {unknown[1]!r}{_path(text)}; {hint}") from error


def _known_keys(shape: Any) -> list[str]:
    struct = ScriptConfig if shape is not AgentConfig else AgentConfig
    keys = [field.encode_name for field in msgspec.structs.fields(struct)]
    return keys + ([field.encode_name for field in msgspec.structs.fields(Limits)] if struct is ScriptConfig else [])


def _path(text: str) -> str:
    found = re.search(r"at `\$?([^`]*)`", text)
    return f" at {found[1]}" if found and found[1] else ""


def _readable(text: str) -> str:
    return text.replace("`$.", "`").replace("`$", "`").replace("Object missing required field", "missing key")
