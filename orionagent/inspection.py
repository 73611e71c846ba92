"""Owns the doctor's look at files: folder, disk, config.json, scripts.json and what scripts need, the buffer.

Must not know backend, daemon or service, nor change anything.
"""

import os
import shutil
import stat
from collections.abc import Iterator

from orionagent.config import AgentConfig, load_agent_config, read_source_file
from orionagent.envfile import read_env_file
from orionagent.errors import ConfigError
from orionagent.findings import Finding, not_for_this_user, problem
from orionagent.paths import Paths, project_config
from orionagent.scriptfile import ScriptConfig, check_script_target, load_scripts
from orionagent.text import size

FREE_WARNING_BYTES = 100 << 20
SET_UP = "sudo orion setup --server"
TAKE_UP = "correct it, then: orion reload"


def check_folder(paths: Paths) -> Iterator[Finding]:
    """Look at /etc/orion and at the room on its disk."""
    if not os.path.isdir(paths.etc):
        yield Finding("problem", "folder", f"there is no {paths.etc}", SET_UP)
        return
    found = os.stat(paths.etc)
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        text = f"others can write {paths.etc}, and so what is run as root"
        yield Finding("problem", "folder", text, f"sudo chmod go-w {paths.etc}")
    if os.statvfs(paths.etc).f_flag & os.ST_RDONLY:
        text = f"{paths.etc} is on a read-only disk: nothing can be buffered there"
        yield Finding("problem", "disk", text, "remount it writable")
        return
    free = shutil.disk_usage(paths.etc).free
    if free < FREE_WARNING_BYTES:
        text = f"only {size(free)} are free at {paths.etc}, where the buffer is"
        yield Finding("warning", "disk", text, "make room, or set bufferMaxBytes")
    else:
        yield Finding("ok", "disk", f"{size(free)} free at {paths.etc}")


def check_config(paths: Paths) -> tuple[AgentConfig | None, list[Finding]]:
    """Look at config.json; return what it says where it can be read."""
    if os.path.exists(paths.config) and not os.access(paths.config, os.R_OK):
        return None, [not_for_this_user("config", paths.config)]
    try:
        config = load_agent_config(paths)
    except ConfigError as error:
        return None, [problem("config", error.message, TAKE_UP)]
    if not os.path.exists(paths.config):
        return config, [Finding("problem", "config", f"there is no {paths.config}", SET_UP)]
    found = list(check_private("config", paths.config))
    if not config.token:
        found.append(Finding("problem", "config", f"{paths.config} has no token", SET_UP))
    return config, found or [Finding("ok", "config", paths.config)]


def check_private(subject: str, path: str) -> Iterator[Finding]:
    """Look whether others can read what is in a file."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        yield Finding("problem", subject, f"others can read {path} (mode {mode:04o})", f"sudo chmod 600 {path}")


def check_scripts(paths: Paths) -> Iterator[Finding]:
    """Look at scripts.json, and at each script's folder, users, environment file and token."""
    try:
        scripts = load_scripts(paths)
    except ConfigError as error:
        yield problem("scripts", error.message, TAKE_UP)
        return
    found = [finding for script in scripts for finding in check_script(script)]
    yield from found
    if not found:
        yield Finding("ok", "scripts", f"{len(scripts)} in {paths.scripts}" if scripts else "none yet")


def check_script(script: ScriptConfig) -> Iterator[Finding]:
    """Look at what a script needs to start, and at its token."""
    try:
        if script.cwd is not None:
            os.stat(script.cwd)
    except PermissionError:
        yield not_for_this_user("scripts", script.cwd or "")
        return
    except OSError:
        pass  # The check below says it in better words.
    try:
        check_script_target(script)
    except ConfigError as error:
        text = error.message.split(";")[0].replace(f"cannot add {script.name}", f"cannot start {script.name}")
        key = next((key for key in ("folder", "user", "group") if f"no {key} " in text), "cwd").replace("folder", "cwd")
        remedy = f"make it, or: sudo orion script set {script.name} {key}=..., or: orion script remove {script.name}"
        yield Finding("problem", "scripts", text, remedy)
    if script.envFile is not None:
        yield from check_env_file(script.name, script.envFile)
    if script.cwd is not None and os.path.isfile(project_config(script.cwd)):
        yield from check_source_token(script.cwd)


def check_source_token(folder: str) -> Iterator[Finding]:
    """Look whether an application's token is read, and by nobody else."""
    path = project_config(folder)
    try:
        if os.access(path, os.R_OK):
            read_source_file(folder)
    except ConfigError as error:
        found = problem("scripts", error.message, TAKE_UP)
        yield found._replace(text=f"{found.text}: the server's token is used")
        return
    yield from check_private("scripts", path)


def check_env_file(name: str, path: str) -> Iterator[Finding]:
    """Look at a script's environment file."""
    if os.path.exists(path) and not os.access(path, os.R_OK):
        yield not_for_this_user("scripts", path)
        return
    try:
        read_env_file(path)
    except ConfigError as error:
        found = problem("scripts", error.message, f"correct it, then: orion script restart {name}")
        yield found._replace(text=f"cannot start {name}: {found.text}")


def check_buffer_file(paths: Paths) -> Iterator[Finding]:
    """Look at what lies where the buffer is kept: it holds what applications print."""
    try:
        found = os.stat(paths.buffer)
    except FileNotFoundError:
        return
    except PermissionError:
        yield not_for_this_user("buffer", paths.buffer)
        return
    if not stat.S_ISREG(found.st_mode):
        text = f"{paths.buffer} is not a file: nothing can be kept there"
        yield Finding("problem", "buffer", text, f"move it away: sudo mv {paths.buffer} {paths.buffer}.old")
        return
    yield from check_private("buffer", paths.buffer)
