"""Runs a program in a cgroup of its own, delegated as systemd does it, where PID 1 is not systemd.

    unshare --mount --propagation private python delegated.py run NAME MARK PROGRAM...
    unshare --mount --propagation private python delegated.py remove NAME

Needs root. MARK is the extended attribute that says "delegated", or "none".
"""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

TOP = Path("/sys/fs/cgroup")


def mount() -> None:
    """Put a pure cgroup v2 tree where this mount namespace has cgroups."""
    subprocess.run(["umount", "-R", "-l", str(TOP)], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(TOP)], check=True)


def run(name: str, mark: str, *program: str) -> None:
    """Enter the cgroup, made if need be, and become the program."""
    group = TOP / name
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text("0")
    if mark != "none":
        os.setxattr(group, mark, b"1")
    os.execvp(program[0], program)


def remove(name: str) -> None:
    """Kill what is left in the cgroup and remove it."""
    group = TOP / name
    if not group.exists():
        return
    (group / "cgroup.kill").write_text("1")
    for folder, _, _ in sorted(os.walk(group), reverse=True):
        remove_emptied(folder)


def remove_emptied(folder: str) -> None:
    """Remove a cgroup as soon as the last of those that were killed has gone."""
    while True:
        try:
            os.rmdir(folder)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.01)
        else:
            return


if __name__ == "__main__":
    mount()
    if sys.argv[1] == "run":
        run(*sys.argv[2:])
    else:
        remove(*sys.argv[2:])
