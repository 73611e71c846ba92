"""Owns `orion doctor`: what may be wrong with an installation, from its files to its backend and its daemon.

Must not change anything. What this user may not look at is said, not guessed.
"""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

from orionagent import __version__
from orionagent.backend import Backend
from orionagent.config import AgentConfig
from orionagent.errors import BackendError, NotRunning, OrionError, Refused, Retryable
from orionagent.findings import Finding, Level, problem
from orionagent.inspection import SET_UP, TAKE_UP, check_buffer_file, check_config, check_folder, check_scripts
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.text import duration

UNIT = "orion-agent"
SKEW_WARNING_S = 5.0
SKEW_PROBLEM_S = 60.0
ANSWER_S = 10.0
REACH = "check network, proxy and apiUrl"


def diagnose(paths: Paths, hostname: str) -> list[Finding]:
    """Look at everything; blocks for at most some tens of seconds when nothing answers."""
    found = list(check_folder(paths))
    config, about_config = check_config(paths)
    found += about_config
    found += check_scripts(paths)
    found += check_buffer_file(paths)
    if config is not None and config.token:
        found += check_backend(config, config.hostname or hostname)
    found += check_unit(paths)
    found += check_daemon(paths)
    return found


# -- backend ----------------------------------------------------------------------------------------------


def check_backend(config: AgentConfig, hostname: str) -> Iterator[Finding]:
    """Ask the backend something harmless under the token; look at the clocks."""
    backend = Backend(config, hostname)
    try:
        try:
            backend.fetch_commands(hostname)
        except Refused as error:
            yield problem("backend", error.message, SET_UP)
        except Retryable as error:
            yield problem("backend", error.message, REACH)
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


def check_unit(paths: Paths, booted: str = "/run/systemd/system") -> Iterator[Finding]:
    """Ask systemd about the service, where it is in charge: the folder `booted` says so, see sd_booted(3)."""
    if paths.root != "/" or not os.path.isdir(booted):
        return
    if _systemctl("cat", UNIT) is None:
        yield Finding("problem", "service", f"systemd knows no {UNIT}", "curl -fsSL https://install.orion.dev | bash")
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
        yield problem("daemon", error.message, "sudo orion doctor")
        return
    yield Finding("ok", "daemon", f"version {status['version']}, up {duration(status['uptimeSeconds'])}")
    if status["version"] != __version__:
        text = f"this command is version {__version__}, the daemon another"
        yield Finding("warning", "daemon", text, f"sudo systemctl reload {UNIT}")
    if status.get("configError"):
        text = f"it goes on with an older configuration: {status['configError'].split('; ')[0]}"
        yield Finding("problem", "daemon", text, TAKE_UP)
    yield from check_delivery(status)


def check_delivery(status: dict[str, Any]) -> Iterator[Finding]:
    """Judge the daemon's link and buffer."""
    link, buffer = status.get("link") or {}, status.get("buffer") or {}
    if link.get("state") == "not-configured":
        yield Finding("problem", "backend", "the daemon has no token", SET_UP)
    elif link.get("state") in ("retrying", "paused"):
        remedy = REACH if link["state"] == "retrying" else SET_UP
        yield problem("backend", f"the daemon is {link['state']}: {link.get('lastError')}", remedy)
    if buffer.get("memoryOnly"):
        text = f"entries are kept in memory only: {buffer.get('diskError') or 'the disk takes none'}"
        yield Finding("problem", "buffer", text, "make the disk writable, or make room")
    if buffer.get("droppedTotal"):
        text = f"{entries(buffer['droppedTotal'])} dropped since it started, for the buffer was full"
        yield Finding("warning", "buffer", text, "keep the backend in reach, or set bufferMaxEntries higher")
    if buffer.get("rejectedTotal"):
        text = f"{entries(buffer['rejectedTotal'])} refused by the backend"
        yield Finding("warning", "buffer", text, "see rejected.jsonl beside the buffer for which, and why")
    if not buffer.get("memoryOnly"):
        yield Finding("ok", "buffer", f"{entries(buffer['entries'])} waiting" if buffer.get("entries") else "empty")


def entries(count: int) -> str:
    """Return a number of entries in words that fit it."""
    return f"{count} {'entry' if count == 1 else 'entries'}"
