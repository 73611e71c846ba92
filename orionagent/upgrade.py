"""Owns replacing this process image by the installed program, without the applications noticing.

Knows nothing of what the descriptors that it passes on are for.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

import orionagent
from orionagent.errors import OrionError

SELF_TEST_VARIABLE = "ORION_SELF_TEST"
INHERITED_VARIABLE = "ORION_INHERITED"
SELF_TEST_TIMEOUT_S = 20.0


def program() -> list[str]:
    """Return how the installed program is started: the frozen binary, or this interpreter and launcher."""
    if getattr(sys, "frozen", False):
        # The name it was started by is a link to the current version; sys.executable is this very version.
        return [os.path.abspath(shutil.which(sys.argv[0]) or sys.executable)]
    return [sys.executable, os.path.abspath(sys.argv[0])]


def fingerprint() -> tuple[object, ...]:
    """Return what changes when another version is installed: where the package really is and when it was written."""
    path = os.path.realpath(program()[-1]) if getattr(sys, "frozen", False) else orionagent.__file__
    try:
        stat = os.stat(path)
    except OSError:
        return (path, None)
    return (path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


def check_starts(root: str) -> str:
    """Let the installed program import everything and read its configuration; return its version.

    Blocks up to 20 s, and the whole event loop with it: the applications' pipes hold their output meanwhile.

    Raises:
        OrionError: it does not start; the message has its last words.
    """
    environment = {**os.environ, SELF_TEST_VARIABLE: "1", "ORION_ROOT": root}
    environment.pop("NOTIFY_SOCKET", None)
    try:
        result = subprocess.run(
            [*program(), "daemon", "--foreground"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SELF_TEST_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OrionError(f"cannot replace the agent: the installed program does not start: {error}") from error
    if result.returncode != 0:
        words = result.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise OrionError(
            f"cannot replace the agent: the installed program ends with {result.returncode}: {words[0]}; "
            "the running one stays"
        )
    return result.stdout.decode("utf-8", "replace").strip()


def replace_image(descriptors: Mapping[str, int], root: str) -> None:
    """Execute the installed program in this process; returns only by raising.

    The descriptors go along under their names. Signals must be blocked: they stay so across the exec, and what
    arrives in between waits for the new image.

    Raises:
        OSError: the exec failed; the caller is still what it was.
    """
    for fd in descriptors.values():
        os.set_inheritable(fd, True)
    listed = ",".join(f"{name}={fd}" for name, fd in descriptors.items())
    environment = {**os.environ, INHERITED_VARIABLE: listed, "ORION_ROOT": root}
    argv = [*program(), "daemon", *(["--foreground"] if "--foreground" in sys.argv else [])]
    os.execve(argv[0], argv, environment)


def inherited_descriptors() -> dict[str, int]:
    """Return what the image before this one passed on, by name, and hide it from children."""
    listed = os.environ.pop(INHERITED_VARIABLE, "")
    found = {}
    for item in filter(None, listed.split(",")):
        name, _, number = item.rpartition("=")
        fd = int(number)
        os.set_inheritable(fd, False)
        found[name] = fd
    return found
