"""Owns the programs that are measured side by side: how each is configured, started, asked and stopped.

Knows nothing of what is measured.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.children import Child
from bench.machine import is_alive, process_tree, run_ms, until

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
PEER_BIN = Path(os.environ.get("BENCH_PEERS", REPOSITORY / ".venv-bench")) / "bin"


class Peer:
    """A supervisor under measurement. `captures`: its children's lines end up in `files()`."""

    name = "?"
    restarts = True
    has_status = True
    program = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot be measured here."""
        return None if os.access(PEER_BIN / cls.program, os.X_OK) else f"no {PEER_BIN / cls.program}"

    def configure(self, children: list[Child]) -> list[str]:
        """Write its configuration; return the command that starts it in the foreground."""
        raise NotImplementedError

    def status_argv(self) -> list[str]:
        raise NotImplementedError

    def lines_arrived(self) -> int:
        """Return how many marked lines have arrived where this peer takes them."""
        total = 0
        for path in self.folder.glob("out/*"):
            total += path.stat().st_size // 120
        return total

    def last_arrival_ns(self) -> int:
        return max((path.stat().st_mtime_ns for path in self.folder.glob("out/*")), default=0)

    def start(self, children: list[Child]) -> None:
        """Start it and wait until every child waits for its signal."""
        (self.folder / "out").mkdir(exist_ok=True)
        argv = self.configure(children)
        with open(self.folder / "daemon.out", "ab") as out:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=self.output() or out,
                stderr=out,
                env={**os.environ, **self.env},
                cwd=self.folder,
                start_new_session=True,
            )
        for _ in until(30.0):
            if all((child.folder / "ready").exists() for child in children) and self.is_ready():
                return
        raise RuntimeError(f"{self.name} did not start its children; see {self.folder}/daemon.out")

    def output(self) -> int | None:
        return None

    def is_ready(self) -> bool:
        return not self.has_status or run_ms(self.status_argv(), self.env)[1] == 0

    def pids(self, supervised: set[int]) -> list[int]:
        """Return the daemon's processes without the programs it supervises."""
        assert self.process is not None
        theirs = {pid for child in supervised for pid in process_tree(child)}
        return [pid for pid in process_tree(self.process.pid) if pid not in theirs]

    def stop(self) -> None:
        """End it and everything below it."""
        if self.process is None:
            return
        pids = process_tree(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        for _ in until(15.0):
            if self.process.poll() is not None and not any(is_alive(pid) for pid in pids):
                break
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.process = None


class Orion(Peer):
    """The agent, delivering to a loopback sink."""

    name = "orion"
    program = str(REPOSITORY / ".venv/bin/orion")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env = {"ORION_ROOT": str(folder)}
        self.sink = SinkProcess()

    def configure(self, children: list[Child]) -> list[str]:
        etc = self.folder / "etc/orion"
        etc.mkdir(parents=True)
        for name, content in (
            ("config.json", {"token": "bench", "apiUrl": self.address()}),
            (
                "scripts.json",
                [
                    {"name": child.name, "command": child.command, "backoffBase": 0, "maxRestarts": 1_000_000}
                    for child in children
                ],
            ),
        ):
            with open(etc / name, "w", encoding="utf-8", opener=_private) as file:
                json.dump(content, file)
        return [self.program, "daemon", "--foreground"]

    def address(self) -> str:
        return f"http://127.0.0.1:{self.sink.port}"

    def status_argv(self) -> list[str]:
        return [self.program, "status"]

    def log_argv(self) -> list[str]:
        return [self.program, "log", "info", "hello"]

    def lines_arrived(self) -> int:
        return int(self.sink.stats()["lines"])

    def last_arrival_ns(self) -> int:
        return int(self.sink.stats()["lastNs"])

    def stop(self) -> None:
        super().stop()
        self.sink.stop()


class Supervisor(Peer):
    """supervisord, to files."""

    name = "supervisor"
    program = "supervisord"

    def configure(self, children: list[Child]) -> list[str]:
        place = self.folder
        lines = [
            f"[unix_http_server]\nfile={place}/s.sock",
            f"[supervisord]\nnodaemon=true\nlogfile={place}/s.log\npidfile={place}/s.pid"
            + ("\nuser=root" if os.geteuid() == 0 else ""),
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
            f"[supervisorctl]\nserverurl=unix://{place}/s.sock",
        ]
        for child in children:
            lines.append(
                f"[program:{child.name}]\ncommand={child.command}\nautorestart=true\nstartsecs=0\n"
                f"startretries=1000000\nstdout_logfile={place}/out/{child.name}\nstdout_logfile_maxbytes=0"
            )
        (place / "s.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [str(PEER_BIN / "supervisord"), "-c", str(place / "s.conf")]

    def status_argv(self) -> list[str]:
        return [str(PEER_BIN / "supervisorctl"), "-c", str(self.folder / "s.conf"), "status"]


class Circus(Peer):
    """circusd, to files; its shortest check interval."""

    name = "circus"
    program = "circusd"

    def configure(self, children: list[Child]) -> list[str]:
        place = self.folder
        lines = [
            f"[circus]\nendpoint = ipc://{place}/e.sock\npubsub_endpoint = ipc://{place}/p.sock\ncheck_delay = 0.1"
        ]
        for child in children:
            lines.append(
                f"[watcher:{child.name}]\ncmd = {child.argv[0]}\nargs = {' '.join(child.argv[1:])}\n"
                f"copy_env = True\nmax_retry = -1\n"
                f"stdout_stream.class = FileStream\nstdout_stream.filename = {place}/out/{child.name}"
            )
        (place / "c.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [str(PEER_BIN / "circusd"), str(place / "c.ini")]

    def status_argv(self) -> list[str]:
        return [str(PEER_BIN / "circusctl"), "--endpoint", f"ipc://{self.folder}/e.sock", "status"]


class Honcho(Peer):
    """honcho, to one file; it neither restarts nor answers."""

    name = "honcho"
    program = "honcho"
    restarts = False
    has_status = False

    def configure(self, children: list[Child]) -> list[str]:
        text = "".join(f"{child.name}: exec {child.command}\n" for child in children) or "none: exec sleep 99999\n"
        (self.folder / "Procfile").write_text(text, encoding="utf-8")
        self._read = self._lines = 0
        self._out = os.open(self.folder / "out/all", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return [str(PEER_BIN / "honcho"), "-f", str(self.folder / "Procfile"), "start"]

    def output(self) -> int | None:
        return self._out

    def lines_arrived(self) -> int:
        """Count what is new since the last call: its lines are longer than they were, by a prefix."""
        with open(self.folder / "out/all", "rb") as file:
            file.seek(self._read)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        self._lines += complete.count(b" mark=")
        return self._lines

    def stop(self) -> None:
        super().stop()
        os.close(self._out)


ALL: tuple[type[Peer], ...] = (Orion, Supervisor, Circus, Honcho)


class SinkProcess:
    """The counting backend in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(HERE / "sink.py")], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stats(self) -> dict[str, float]:
        """Return the counts of what has arrived."""
        return dict(json.loads(self._ask("GET", "/_stats")))

    def reset(self) -> None:
        self._ask("POST", "/_reset")

    def _ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers={"Content-Length": "0"})
            return connection.getresponse().read()
        finally:
            connection.close()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def fresh_folder(name: str) -> Path:
    """Return a new folder with a short path, in memory where that is possible."""
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
    folder = base / f"orion-bench-{os.getpid()}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def settle(seconds: float) -> None:
    """Let start-up work end before a reading begins."""
    time.sleep(seconds)
