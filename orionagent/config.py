"""Owns config.json and .orion/config.json, and is the door to all files that a person edits.

Knows nothing of who uses them. Unknown keys are an error that names the nearest known one.
"""

import os
import re
import stat
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orionagent import jsonfile
from orionagent.envfile import read_env_file
from orionagent.errors import ConfigError
from orionagent.files import read_guarded, write_atomic
from orionagent.paths import Paths, project_config
from orionagent.scriptfile import (
    LEVELS,
    NAME,
    Limits,
    ScriptConfig,
    check_script_target,
    load_scripts,
    parse_script,
    save_scripts,
)

__all__ = [
    "LEVELS",
    "NAME",
    "AgentConfig",
    "Limits",
    "ScriptConfig",
    "api_base",
    "check_script_target",
    "is_loopback",
    "load_agent_config",
    "load_scripts",
    "load_source_token",
    "parse_script",
    "read_env_file",
    "read_source_file",
    "save_agent_config",
    "save_scripts",
]

API_SUFFIX = "/api/v1"
TOKEN = re.compile(r"[\x21-\x7e]+")
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The server-wide configuration. Without a token the agent supervises and buffers, but sends nothing.

    `heartbeatInterval` is milliseconds, `redact` None the default patterns.
    """

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
    written = jsonfile.parse(data, paths.config)
    config = jsonfile.convert(written, AgentConfig, paths.config, structs=(AgentConfig,))
    _check(config, paths.config)
    return config


def _check(config: AgentConfig, path: str) -> None:
    def need(holds: bool, key: str, rule: str) -> None:
        if not holds:
            raise ConfigError(f"cannot use {path}: {key} must be {rule}")

    need(config.token is None or bool(TOKEN.fullmatch(config.token)), "token", "free of white space, as it was given")
    need(
        1000 <= config.heartbeatInterval <= 86_400_000,
        "heartbeatInterval",
        "1000 to 86400000 (milliseconds: 30000 is half a minute)",
    )
    need(
        config.hostname is None or bool(HOSTNAME.fullmatch(config.hostname)),
        f"hostname {config.hostname!r}",
        "letters, digits, dots and hyphens",
    )
    need(config.caFile is None or os.path.isabs(config.caFile), "caFile", "an absolute path")
    need(config.proxy is None or _is_proxy(config.proxy), "proxy", "an address such as http://proxy.example:3128")
    need(config.bufferMaxEntries >= 1, "bufferMaxEntries", "at least 1")
    need(config.bufferMaxBytes >= 1 << 20, "bufferMaxBytes", "at least 1048576 (1 MiB)")
    for index, pattern in enumerate(config.redact or ()):
        try:
            matches_nothing = re.compile(pattern).search("") is not None
        except re.error as error:
            raise ConfigError(
                f"cannot use {path}: redact[{index}]: {pattern!r} is no regular expression: {error}"
            ) from error
        need(not matches_nothing, f"redact[{index}] {pattern!r}", "a pattern that does not match everywhere")
    api_base(config, path)


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def save_agent_config(paths: Paths, config: AgentConfig) -> None:
    """Write config.json, readable by its owner alone; keys keep the order that a person gave them.

    Raises:
        ConfigError: the file cannot be written, or holds what is not JSON.
    """
    data = read_guarded(paths.config)
    before = jsonfile.parse(data, paths.config) if data is not None else {}
    fields = jsonfile.amend(before if isinstance(before, dict) else {}, config)
    known = jsonfile.keys(AgentConfig)
    _write(paths.config, {key: value for key, value in fields.items() if key in known}, mode=0o600)


def load_source_token(folder: str) -> str | None:
    """Return the token in an application folder's .orion/config.json, None when there is none to be read."""
    try:
        data = read_source_file(folder)
        fields = jsonfile.parse(data, folder) if data is not None else None
    except ConfigError:
        return None
    token = fields.get("token") if isinstance(fields, dict) else None
    return token if isinstance(token, str) and TOKEN.fullmatch(token) else None


def read_source_file(folder: str) -> bytes | None:
    """Return an application folder's .orion/config.json, None when there is none.

    Root can read what the folder's owner cannot: links are followed only to what is that owner's. Anybody else's
    file is taken where it lies in the folder itself, for whoever put it there could read it.

    Raises:
        ConfigError: it cannot be read, or a link leads to what is somebody else's; names the remedy.
    """
    path = project_config(folder)
    try:
        owner = os.stat(folder)
    except OSError:
        return None
    # In a folder of root's that others can write, a link may be theirs while what it leads to is root's.
    is_shared = owner.st_uid == 0 and owner.st_mode & (stat.S_IWGRP | stat.S_IWOTH)

    def is_owners(found: os.stat_result) -> None:
        if found.st_uid != owner.st_uid or is_shared:
            raise ConfigError(f"refusing {path}: it belongs to uid {found.st_uid}; chown it to uid {owner.st_uid}")

    def has_one_name(found: os.stat_result) -> None:
        if found.st_nlink > 1:
            raise ConfigError(f"refusing {path}: it has another name elsewhere; put a copy in its place")

    try:
        return read_guarded(path, judge=is_owners)
    except ConfigError:
        return read_guarded(path, follow=False, judge=has_one_name)


def _write(path: str, value: Any, *, mode: int) -> None:
    try:
        write_atomic(path, jsonfile.dump(value), mode=mode)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; nothing was changed") from error


def api_base(config: AgentConfig, where: str = "config.json") -> str:
    """Return the address that all routes are below, ending in /api/v1.

    Raises:
        ConfigError: no address, or plain http to another machine without `allowInsecure`.
    """
    try:
        parts = urlsplit(config.apiUrl)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character <= " " for character in config.apiUrl):
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
