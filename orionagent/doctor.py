"""Owns `orion doctor`: what may be wrong with an installation, each finding with its remedy.

Must not change anything. What this user may not look at is said, not guessed.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from orionagent import __version__
from orionagent.backend import Backend
from orionagent.config import AgentConfig, load_agent_config
from orionagent.envfile import read_env_file
from orionagent.errors import BackendError, ConfigError, NotRunning, OrionError, Refused, Retryable
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.scriptfile import ScriptConfig, check_script_target, load_scripts
from orionagent.text import duration, escape_lines, size, style

Level = Literal["ok", "note", "warning", "problem"]
STYLES: dict[Level, str] = {"ok": "32", "note": "2", "warning": "33", "problem": "31"}
UNIT = "orion-agent"
SKEW_WARNING_S = 5.0
SKEW_PROBLEM_S = 60.0
FREE_WARNING_BYTES = 100 << 20
ANSWER_S = 10.0


class Finding(NamedTuple):
    """One thing that was looked at. `remedy` is empty where nothing needs to be done."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def diagnose(paths: Paths, hostname: str) -> list[Finding]:
    """Look at everything; blocks for at most some tens of seconds when nothing answers."""
    found = list(check_folder(paths))
    config, about_config = check_config(paths)
    found += about_config
    found += check_scripts(paths)
    if config is not None and config.token:
        found += check_backend(config, config.hostname or hostname)
    found += check_unit(paths)
    found += check_daemon(paths)
    return found


def is_sick(findings: Sequence[Finding]) -> bool:
    """Tell whether any of them needs to be mended."""
    return any(finding.level == "problem" for finding in findings)


def render_findings(findings: Sequence[Finding], *, color: bool) -> str:
    """Return the findings as lines, each remedy below its finding."""
    lines = []
    for level, subject, text, remedy in findings:
        mark = style(f"{level:<8}", STYLES[level], color)
        lines.append(f"{mark} {subject:<8} {escape_lines(text, ' ' * 18)}\n")
        if remedy:
            lines.append(f"{'':<18}-> {escape_lines(remedy, ' ' * 21)}\n")
    problems = sum(finding.level == "problem" for finding in findings)
    return "".join(lines) + (f"{problems} to mend\n" if problems else "nothing to mend\n")


# -- files ------------------------------------------------------------------------------------------------


def check_folder(paths: Paths) -> Iterator[Finding]:
    """Look at /etc/orion and at the room on its disk."""
    if not os.path.isdir(paths.etc):
        yield Finding("problem", "folder", f"there is no {paths.etc}", "sudo orion setup --server")
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
        return None, [Finding("note", "config", f"{paths.config} is not for this user", "sudo orion doctor")]
    try:
        config = load_agent_config(paths)
    except ConfigError as error:
        return None, [Finding("problem", "config", error.message)]
    found = []
    if not os.path.exists(paths.config):
        return config, [Finding("problem", "config", f"there is no {paths.config}", "sudo orion setup --server")]
    mode = stat.S_IMODE(os.stat(paths.config).st_mode)
    if mode & 0o077:
        text = f"others can read {paths.config} and the token in it (mode {mode:04o})"
        found.append(Finding("problem", "config", text, f"sudo chmod 600 {paths.config}"))
    if not config.token:
        found.append(Finding("problem", "config", f"{paths.config} has no token", "sudo orion setup --server"))
    return config, found or [Finding("ok", "config", paths.config)]


def check_scripts(paths: Paths) -> Iterator[Finding]:
    """Look at scripts.json, and at each script's folder, users and environment file."""
    try:
        scripts = load_scripts(paths)
    except ConfigError as error:
        yield Finding("problem", "scripts", error.message)
        return
    bad = False
    for script in scripts:
        for finding in check_script(script):
            bad = True
            yield finding
    if not bad:
        yield Finding("ok", "scripts", f"{len(scripts)} in {paths.scripts}" if scripts else "none yet")


def check_script(script: ScriptConfig) -> Iterator[Finding]:
    """Look at what a script needs to start."""
    try:
        if script.cwd is not None:
            os.stat(script.cwd)
    except PermissionError:
        yield Finding("note", "scripts", f"{script.cwd} is not for this user", "sudo orion doctor")
        return
    except OSError:
        pass  # The check below says it in better words.
    try:
        check_script_target(script)
    except ConfigError as error:
        text = error.message.replace(f"cannot add {script.name}", f"cannot start {script.name}")
        yield Finding("problem", "scripts", text, f"orion script set {script.name} ..., or orion script remove")
    if script.envFile is not None:
        if os.path.exists(script.envFile) and not os.access(script.envFile, os.R_OK):
            yield Finding("note", "scripts", f"{script.envFile} is not for this user", "sudo orion doctor")
            return
        try:
            read_env_file(script.envFile)
        except ConfigError as error:
            yield Finding("problem", "scripts", f"cannot start {script.name}: {error.message}")


# -- backend ----------------------------------------------------------------------------------------------


def check_backend(config: AgentConfig, hostname: str) -> Iterator[Finding]:
    """Ask the backend something harmless under the token; look at the clocks."""
    backend = Backend(config, hostname)
    try:
        try:
            backend.fetch_commands(hostname)
        except Refused as error:
            yield Finding("problem", "backend", error.message, "sudo orion setup --server")
        except Retryable as error:
            yield Finding("problem", "backend", error.message, "check network, proxy and apiUrl")
            return
        except BackendError:
            # It is there and took the token; what it does not know is no matter of the installation.
            yield Finding("ok", "backend", f"{backend.base} answers")
        else:
            yield Finding("ok", "backend", f"{backend.base} accepts the token")
        yield from check_clock(backend.clock_skew_s)
    finally:
        backend.close()


def check_clock(skew_s: float | None) -> Iterator[Finding]:
    """Judge the backend's clock minus ours."""
    if skew_s is None or abs(skew_s) < SKEW_WARNING_S:
        return
    text = f"this machine's clock is {duration(abs(skew_s))} {'behind' if skew_s > 0 else 'ahead of'} the backend's"
    level: Level = "problem" if abs(skew_s) >= SKEW_PROBLEM_S else "warning"
    yield Finding(level, "clock", text, "sudo timedatectl set-ntp true")


# -- service ----------------------------------------------------------------------------------------------


def check_unit(paths: Paths) -> Iterator[Finding]:
    """Ask systemd about the service, where it is in charge."""
    if paths.root != "/" or not os.path.isdir("/run/systemd/system"):
        return
    if _systemctl("cat", UNIT) is None:
        yield Finding("problem", "service", f"systemd knows no {UNIT}", "install it again")
        return
    enabled = _systemctl("is-enabled", UNIT)
    if enabled not in ("enabled", "enabled-runtime", "static", "alias"):
        yield Finding("problem", "service", f"{UNIT} does not start at boot", f"sudo systemctl enable {UNIT}")
    active = _systemctl("is-active", UNIT) or "inactive"
    if active == "active":
        yield Finding("ok", "service", f"{UNIT} is active")
    else:
        remedy = f"sudo systemctl start {UNIT}; journalctl -u {UNIT} says why it ended"
        yield Finding("problem", "service", f"{UNIT} is {active}", remedy)


def _systemctl(*arguments: str) -> str | None:
    """Return what systemctl says; None where it says nothing."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments],
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def check_daemon(paths: Paths) -> Iterator[Finding]:
    """Ask the daemon how it is."""
    start = f"sudo systemctl start {UNIT}" if paths.root == "/" else f"ORION_ROOT={paths.root} orion daemon"
    try:
        status = client.call(paths.socket, "status", timeout_s=ANSWER_S)
    except NotRunning as error:
        yield Finding("problem", "daemon", error.message.split(";")[0], start)
        return
    except OrionError as error:
        yield Finding("problem", "daemon", error.message)
        return
    yield Finding("ok", "daemon", f"version {status['version']}, up {duration(status['uptimeSeconds'])}")
    if status["version"] != __version__:
        text = f"this command is version {__version__}, the daemon another"
        yield Finding("warning", "daemon", text, f"sudo systemctl reload {UNIT}")
    if status.get("configError"):
        yield Finding("problem", "daemon", f"it goes on with an older configuration: {status['configError']}")
    yield from check_delivery(status)


def check_delivery(status: dict[str, Any]) -> Iterator[Finding]:
    """Judge the daemon's link and buffer."""
    link, buffer = status.get("link") or {}, status.get("buffer") or {}
    if link.get("state") == "not-configured":
        yield Finding("problem", "backend", "the daemon has no token", "sudo orion setup --server, then orion reload")
    elif link.get("state") in ("retrying", "paused"):
        yield Finding("problem", "backend", f"the daemon is {link['state']}: {link.get('lastError')}")
    if buffer.get("memoryOnly"):
        text = f"entries are kept in memory only: {buffer.get('diskError') or 'the disk takes none'}"
        yield Finding("problem", "buffer", text, "make the disk writable, or make room")
    for key, text in (
        ("droppedTotal", "entries were dropped as the buffer was full"),
        ("rejectedTotal", "entries were refused by the backend; they are in rejected.jsonl"),
    ):
        if buffer.get(key):
            yield Finding("warning", "buffer", f"{buffer[key]} {text}")
    if not buffer.get("memoryOnly"):
        entries = buffer.get("entries", 0)
        yield Finding("ok", "buffer", f"{entries} entries wait" if entries else "empty")
