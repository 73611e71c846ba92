"""Owns `orion demo`: console, daemon and two sample applications in a temporary root, until somebody ends it.

Must not know how console and daemon work: it starts the same commands that anybody can, and asks them.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from orionagent import render
from orionagent.errors import OrionError
from orionagent.fastpath import terminal, write_all
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.text import style

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.5
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

Found = TypeVar("Found")


class Ended(Exception):
    """Somebody wants the demo to end."""


def run() -> int:
    """Run the demo until SIGINT, SIGTERM or SIGHUP; blocks. Leaves no process and no file; returns 0.

    Raises:
        OrionError: console or daemon did not start, or one of them ended by itself.
    """
    # Blocked rather than handled: a second Ctrl-C must not interrupt the cleaning up.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    root = tempfile.mkdtemp(prefix="orion-demo-")
    demo = Demo(root)
    try:
        demo.start()
        demo.watch()
    except Ended:
        demo.say_last("\nending the demo ...")
    except BrokenPipeError:
        pass  # nobody reads any more
    finally:
        demo.stop()
        shutil.rmtree(root, ignore_errors=True)
        demo.say_last("ended; nothing of it is left")
        while signal.sigtimedwait(ENDING, 0) is not None:
            continue  # an impatient second Ctrl-C has been obeyed already
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def own_command() -> list[str]:
    """Return the words that started this process, without its arguments."""
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]


def pause(seconds: float) -> None:
    """Wait. Raises Ended when somebody wants the demo to end."""
    if signal.sigtimedwait(ENDING, seconds) is not None:
        raise Ended


def become_child() -> None:
    """Undo what a child must not inherit, and have it end with the demo even if that is killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def script_definitions(folder: str) -> list[dict[str, Any]]:
    """Return the sample applications as `scripts.json` has them."""
    shop = {"name": "shop", "command": f"/bin/sh {folder}/shop.sh", "cwd": folder}
    # It runs for 5 s: longer than minUptime, so that it may crash for ever without being given up.
    importer = {"name": "importer", "command": f"/bin/sh {folder}/importer.sh", "cwd": folder, "minUptime": 3000}
    return [shop, importer]


class Demo:
    """The demo's processes. Sole writer of its root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.paths = Paths(root)
        self.color, _ = terminal()
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._seen: dict[str, str] = {}

    def start(self) -> None:
        """Start console and daemon and say where they are; blocks until both answer.

        Raises: OrionError, Ended.
        """
        self.say("starting a local backend, the agent and two sample applications ...")
        output = os.path.join(self.root, "console.out")
        self._spawn("console", ["console", "--listen=127.0.0.1:0", f"--data={self.root}/console"])
        address, token = self._wait(lambda: read_announcement(output), "console")
        self._write_files(address, token)
        self._spawn("daemon", ["daemon", "--foreground"])
        self._wait(lambda: self._ask("ping"), "daemon")
        link = style(f"{address}/#token={token}", "1", self.color)
        self.say(f"\n  open   {link}\n  page   {address}\n  token  {token}\n")
        self.say(f"  try    ORION_ROOT={self.root} {shown_command()} status\n")
        self.say("Ctrl-C ends the demo and removes everything. What happens:\n")

    def _write_files(self, address: str, token: str) -> None:
        samples = os.path.join(self.root, "samples")
        os.makedirs(samples)
        for name in ("shop.sh", "importer.sh"):
            with open(os.path.join(samples, name), "wb") as file:
                file.write(files("orionagent").joinpath("samples", name).read_bytes())
        os.makedirs(self.paths.etc)
        config = {"token": token, "apiUrl": address, "hostname": "demo", "heartbeatInterval": 2000}
        for path, content in ((self.paths.config, config), (self.paths.scripts, script_definitions(samples))):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as text:
                json.dump(content, text)

    def _spawn(self, name: str, arguments: Sequence[str], *, visible: bool = False) -> None:
        with open(os.path.join(self.root, f"{name}.out"), "wb") as output:
            process = subprocess.Popen(
                [*own_command(), *arguments],
                env=os.environ | {"ORION_ROOT": self.root},
                stdin=subprocess.DEVNULL,
                stdout=None if visible else output,
                stderr=output,
                start_new_session=True,
                preexec_fn=become_child,  # noqa: PLW1509 - this process has one thread
            )
        self._children.append((name, process))

    def _wait(self, find: Callable[[], Found | None], name: str) -> Found:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._check_children()
            found = find()
            if found is not None:
                return found
            pause(0.05)
        raise OrionError(f"cannot start the demo: the {name} does not answer within {START_TIMEOUT_S:g} s")

    def _check_children(self) -> None:
        for name, process in self._children:
            if process.poll() is not None:
                with open(os.path.join(self.root, f"{name}.out"), encoding="utf-8", errors="replace") as file:
                    last = file.read()[-2000:].strip()
                raise OrionError(f"cannot go on: the {name} ended with {process.returncode}\n{last}")

    def _ask(self, cmd: str) -> Any:
        try:
            return client.call(self.paths.socket, cmd, timeout_s=5.0)
        except OrionError:
            return None

    def watch(self) -> None:
        """Show log lines, and how the scripts' states change; blocks until Ended is raised."""
        self._spawn("logs", ["logs", "--follow"], visible=True)
        while True:
            pause(POLL_S)
            self._check_children()
            data = self._ask("script:list") or []
            for row in data["scripts"] if isinstance(data, dict) else data:
                self._show_change(row)

    def _show_change(self, row: dict[str, Any]) -> None:
        fact = f"{row.get('phase')} {row.get('pid')}"
        if self._seen.get(row["name"]) == fact:
            return
        self._seen[row["name"]] = fact
        crashed = row.get("phase") in ("backoff", "crashed")
        word = style("CRASH ", "1;31", self.color) if crashed else style("state ", "1", self.color)
        write_all(1, f"{word} {render.render_outcome(row)}")

    def say(self, text: str) -> None:
        """Print a line at once."""
        write_all(1, text + "\n")

    def say_last(self, text: str) -> None:
        """Print a line, unless nobody can see it any more: the cleaning up matters more."""
        with contextlib.suppress(OSError):
            self.say(text)

    def stop(self) -> None:
        """End the children in reverse order, each within STOP_TIMEOUT_S; nothing of them is left afterwards."""
        for _, process in reversed(self._children):
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_announcement(path: str) -> tuple[str, str] | None:
    """Return the address and token that the console has printed into a file, None while it has not."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")[:-1]
    address = next((line.rpartition(" ")[2] for line in lines if line.startswith("orion console at ")), None)
    token = next((line.removeprefix("token: ") for line in lines if line.startswith("token: ")), None)
    return None if address is None or token is None else (address, token)


def shown_command() -> str:
    """Return how this very command is called, for people to copy."""
    return os.path.relpath(sys.argv[0]) if not sys.argv[0].startswith("/usr/") else "orion"
