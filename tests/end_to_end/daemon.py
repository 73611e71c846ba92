"""Owns the handle by which tests run the real daemon and command line below a root of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest

from orionagent.paths import Paths
from orionagent.scripts.kernel import become_subreaper
from orionagent.scripts.tree import Census, read_environment

REPOSITORY = Path(__file__).parents[2]
ORION = os.environ.get("ORION_BIN") or str(REPOSITORY / "bin" / "orion")
# The file whose change means another version: the packaged program itself, or the package of a checkout.
INSTALLED = os.environ.get("ORION_BIN") or str(REPOSITORY / "orionagent" / "__init__.py")
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Return the condition's first truthy value; fail after a generous deadline."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        gevent.sleep(0.02)
    pytest.fail(f"never happened: {what}")


def run_quietly(
    argv: Sequence[str], environment: Mapping[str, str], cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end without stopping this process's greenlets."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, env=dict(environment), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=cwd
    ) as process:
        pool = gevent.get_hub().threadpool
        out, err = pool.apply(process.communicate, (None, DEADLINE_S))
    return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())


class Daemon:
    """One `orion daemon --foreground` and the commands that talk to it."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.environment = {"PATH": os.environ["PATH"], "ORION_ROOT": paths.root, "LANG": "C.UTF-8"}
        self.process: subprocess.Popen[bytes] | None = None
        self.launcher: Sequence[str] = ()  # words before the command, of a program that becomes it

    def configure(self, config: Mapping[str, Any], scripts: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write config.json and scripts.json."""
        Path(self.paths.config).write_text(json.dumps(config), encoding="utf-8")
        os.chmod(self.paths.config, 0o600)
        Path(self.paths.scripts).write_text(json.dumps(list(scripts)), encoding="utf-8")

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start the daemon without waiting for it."""
        log = open(os.path.join(self.paths.root, "daemon.err"), "ab")  # noqa: SIM115
        with log:
            self.process = subprocess.Popen(
                [*self.launcher, ORION, "daemon", "--foreground"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        process = self.spawn()
        wait_until(lambda: self.answers() or process.poll() is not None, "the daemon answers")
        assert process.poll() is None, self.log()

    def log(self) -> str:
        """Return what the daemon said so far."""
        return Path(self.paths.root, "daemon.err").read_text(encoding="utf-8", errors="replace")[-4000:]

    def answers(self) -> bool:
        """Tell whether the daemon answers a ping."""
        try:
            return bool(self.call("ping")["pong"])
        except (OSError, ValueError):
            return False

    def raw(self, *lines: bytes) -> list[dict[str, Any]]:
        """Send request lines on one connection; return as many replies."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(DEADLINE_S)
            link.connect(self.paths.socket)
            with link.makefile("rwb") as stream:
                stream.write(b"".join(line + b"\n" for line in lines))
                stream.flush()
                return [json.loads(stream.readline()) for _ in lines]

    def call(self, cmd: str, /, **params: Any) -> Any:
        """Return the data of a successful reply."""
        reply = self.raw(json.dumps({"cmd": cmd, **params}).encode())[0]
        assert reply["ok"], reply
        return reply["data"]

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `orion WORDS`."""
        return run_quietly([ORION, *words], self.environment)

    def row(self, name: str) -> dict[str, Any]:
        """Return a script's row."""
        return next(row for row in self.call("status")["scripts"] if row["name"] == name)

    def members(self, name: str) -> list[int]:
        """Return the living processes of a script of this daemon, whether it lives itself or not."""
        found = []
        for pid in Census.take("").processes:
            environment = read_environment(pid)
            if environment.get("ORION_SCRIPT") == name and environment.get("ORION_SOCKET") == self.paths.socket:
                found.append(pid)
        return found

    def signal(self, number: int) -> None:
        """Send the daemon a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the daemon by SIGKILL, as the kernel would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = DEADLINE_S) -> int:
        """End the daemon by SIGTERM; return its exit status."""
        assert self.process is not None
        self.process.terminate()
        end = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < end:
            gevent.sleep(0.02)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            pytest.fail(f"the daemon did not stop: {self.log()}")
        return self.process.returncode

    def close(self) -> None:
        """Leave neither daemon nor scripts behind, whatever the test did."""
        if self.process is None:
            return
        if self.process.poll() is not None and os.path.exists(self.paths.state):
            self.start()  # it was killed: its scripts live on until an agent ends them
        if self.process.poll() is None:
            self.stop()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # orphans of a killed daemon, if this process is their subreaper


@contextlib.contextmanager
def another_version() -> Iterator[None]:
    """Make the installed program look like another one; put everything back in the end."""
    before = os.stat(INSTALLED)
    os.utime(INSTALLED)
    try:
        yield
    finally:
        os.utime(INSTALLED, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def daemon(paths: Paths) -> Iterator[Daemon]:
    """Yield a daemon that is not started yet."""
    found = Daemon(paths)
    yield found
    found.close()


@pytest.fixture
def heir() -> Iterator[None]:
    """Inherit the processes that a killed daemon leaves."""
    become_subreaper()
    yield
    become_subreaper(False)
