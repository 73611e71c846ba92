"""Owns `Machine`: a real systemd in namespaces of its own, with a scratch /etc, /var and /usr/local.

Knows nothing of the agent; needs root, unshare, nsenter and Debian's systemd, and leaves nothing behind.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

BOOT = Path(__file__).with_name("boot.sh")
BOOT_TIMEOUT_S = 60.0
HALT_TIMEOUT_S = 60.0

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
messagebus:x:101:101::/nonexistent:/usr/sbin/nologin
app:x:1000:1000:app:/tmp:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
GROUP = """\
root:x:0:
adm:x:4:
utmp:x:43:
messagebus:x:101:
systemd-journal:x:102:
app:x:1000:
nogroup:x:65534:
"""
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
# No journal on the disk and no waiting for a network that never comes.
JOURNALD = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n"
UNWANTED = (
    "dbus.service",
    "dbus.socket",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-logind.service",
    "getty.target",
    "remote-fs.target",
)


class Machine:
    """One booted systemd. Use as a context manager; `boot` and `halt` may follow each other."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="or-machine-", dir="/tmp"))
        self.local = self.folder / "local"
        self.state = self.folder / "state"
        self.root = self.folder / "root"
        self.cgroup = f"or-{self.folder.name.removeprefix('or-machine-')}"
        self._starter: subprocess.Popen[bytes] | None = None
        self._init = 0
        for name in ("bin", "sbin", "lib", "share"):
            (self.local / name).mkdir(parents=True)
        self.root.mkdir()
        self._furnish()

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.halt()
        finally:
            shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """The pid, as the host sees it, of the machine's PID 1."""
        return self._init

    def boot(self) -> None:
        """Start systemd and wait until its start-up is complete."""
        self._starter = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", str(BOOT), "outer"),
                *(self.cgroup, str(self.root), str(self.local), str(self.state)),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline_s = time.monotonic() + BOOT_TIMEOUT_S
        while not self._find_init():
            if self._starter.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"systemd did not start: {self._starter.returncode}")
            time.sleep(0.01)
        self.run("systemctl", "is-system-running", "--wait", check=False)

    def halt(self) -> None:
        """Shut down as a power button does, and wait until every process is gone."""
        starter, self._starter = self._starter, None
        if starter is None:
            return
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGRTMIN + 4)  # poweroff.target; +3 would only halt
        try:
            starter.wait(HALT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            starter.kill()
            starter.wait()
            raise
        finally:
            self._init = 0
            self._remove_cgroup()

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 120.0, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command inside as root and return it with its output (stderr included)."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._init), "-a", "env", "-i", *ENVIRONMENT, *command],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{self.journal()}")
        return done

    def spawn_in_network(self, *command: str, stdout: int | None = None) -> "subprocess.Popen[bytes]":
        """Start a program of the host (a server for the tests) inside the machine's network only."""
        return subprocess.Popen(["nsenter", "-t", str(self._init), "-n", *command], stdout=stdout)

    def property(self, unit: str, name: str) -> str:
        """Return a unit's property as systemd has it."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def main_pid(self, unit: str) -> int:
        """Return the main process of a unit, as the machine sees it; 0 when there is none."""
        return int(self.property(unit, "MainPID"))

    def journal(self, unit: str | None = None) -> str:
        """Return the journal's text, of all or of one unit."""
        choice = ["-u", unit] if unit else []
        return self.run("journalctl", "--no-pager", "-o", "cat", *choice, check=False).stdout

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Poll `condition` until it holds; raise AssertionError with the journal's end at the deadline."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not within {timeout_s} s: {what}\n{self.journal()[-4000:]}")
            time.sleep(0.02)

    def _furnish(self) -> None:
        etc = self.state / "etc"
        (etc / "systemd" / "journald.conf.d").mkdir(parents=True)
        (etc / "systemd" / "system").mkdir()
        for name in ("log", "lib", "tmp", "spool", "cache"):
            (self.state / "var" / name).mkdir(parents=True)
        (self.state / "var" / "run").symlink_to("/run")
        texts = {
            "hostname": "machine\n",
            "machine-id": "0123456789abcdef0123456789abcdef\n",
            "hosts": "127.0.0.1 localhost machine\n::1 localhost\n",
            "passwd": PASSWD,
            "group": GROUP,
            "nsswitch.conf": NSSWITCH,
            "systemd/journald.conf.d/test.conf": JOURNALD,
        }
        for name, text in texts.items():
            (etc / name).write_text(text)
        for name in ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl", "os-release"):
            source = Path("/etc") / name
            if source.is_dir():
                shutil.copytree(source, etc / name, symlinks=True)
            elif source.exists():
                shutil.copy2(source, etc / name)
        for unit in UNWANTED:
            (etc / "systemd" / "system" / unit).symlink_to("/dev/null")

    def _find_init(self) -> bool:
        """Find the machine's PID 1: our starter's child, once it has become systemd."""
        assert self._starter is not None
        for child in _children(self._starter.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    self._init = child
        if not self._init:
            return False
        # nsenter works from the first moment; systemctl needs the manager's socket.
        return self.run("test", "-S", "/run/systemd/private", check=False).returncode == 0

    def _remove_cgroup(self) -> None:
        # The hierarchy is mounted only inside the namespaces that are gone: mount it once more to tidy up.
        script = (
            'mount -t cgroup2 cgroup2 "$1" && cd "$1" && [ -d "$2" ] || exit 0; echo 1 >"$2/cgroup.kill"; '
            "for try in 1 2 3 4 5 6 7 8 9 10; do "
            'find "$2" -depth -type d -exec rmdir {} \\; 2>/dev/null; [ -d "$2" ] || exit 0; sleep 0.1; done'
        )
        unshare = ("unshare", "--mount", "--propagation", "private")
        subprocess.run([*unshare, "sh", "-c", script, "sh", str(self.root), self.cgroup], check=False)


ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    "HOME=/root",
)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
