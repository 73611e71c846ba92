"""Owns `Server`: a machine with a download site and a backend in its network, and the agent installed on it.

Knows the agent only by its commands and its files, as an operator does.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.systemd.machine import Machine

HERE = Path(__file__).parent
INSTALLER = HERE.parents[1] / "init" / "install.sh"
SITE_PORT, BACKEND_PORT = 8099, 3001
CONFIG = {"token": "machine-token", "apiUrl": f"http://127.0.0.1:{BACKEND_PORT}", "heartbeatInterval": 1000}

# 5,000 numbered lines a second, by the only interpreter that every Debian has. Told to end, it says how far it came:
# so a test knows that nothing is missing at the end either.
WRITER = (
    "perl -MTime::HiRes=time,sleep -e '$| = 1; $SIG{TERM} = sub { $told = 1 }; $start = time; "
    'for ($i = 1; !$told; $i++) { print "line $i\\n"; next if $i % 10; '
    '$ahead = $start + $i / 5000 - time; sleep($ahead) if $ahead > 0 } print "last $i\\n"\''
)


def complete_lines(data: bytes) -> list[bytes]:
    """Return the lines of a file that is being written to; its last one may not be there whole."""
    return data.split(b"\n")[:-1]


class Arrivals:
    """What the collector has written of entries, read a piece at a time.

    An entry is known by instance and seq, and has its place by them. The moment of arrival says nothing: a request of
    an agent that was killed may be read long after its successor's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._instances: dict[str, int] = {}
        self._messages: dict[str, dict[tuple[int, int], str]] = {}

    def read(self) -> None:
        """Take in what is new."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            lines = complete_lines(file.read())
        for line in lines:
            self._read_bytes += len(line) + 1
            instance, seq, source, message = line.decode().split(" ", 3)
            place = (self._instances.setdefault(instance, len(self._instances)), int(seq))
            self._messages.setdefault(source, {})[place] = message

    def count(self, source: str) -> int:
        """Return how many entries of a source have been read."""
        return len(self._messages.get(source, {}))

    def of(self, source: str) -> list[str]:
        """Return a source's messages in order."""
        return [message for _, message in sorted(self._messages.get(source, {}).items())]


class Server(Machine):
    """A machine with what an installation needs around it."""

    def __init__(self, releases: Path) -> None:
        super().__init__()
        self.releases = releases
        self.kept = Path(tempfile.mkdtemp(prefix="kept-", dir=self.folder))
        self.writer = "none"
        self._writers = 0
        self._arrivals = Arrivals(self.kept / "entries")
        self._site: subprocess.Popen[bytes] | None = None
        self._backend: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Boot, with the download site but without the backend."""
        super().boot()
        serve = HERE.parent / "packaging" / "serve.py"
        self._site = self._serve(str(serve), str(self.releases), str(SITE_PORT))

    def halt(self) -> None:
        """Stop what runs beside the machine, then the machine."""
        self.stop_backend()
        if self._site is not None:
            self._site.kill()
            self._site.wait()
            self._site = None
        super().halt()

    def start_backend(self) -> None:
        """Let the backend listen."""
        self._backend = self._serve(str(HERE / "collector.py"), str(self.kept), str(BACKEND_PORT))

    def stop_backend(self) -> None:
        """Let the backend vanish."""
        if self._backend is not None:
            self._backend.kill()
            self._backend.wait()
            self._backend = None

    def _serve(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start one of our servers and return it once it listens: it says so by a line."""
        server = self.spawn_in_network(sys.executable, *command, stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        server.stdout.close()
        return server

    def install(self, *arguments: str, check: bool = True, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the installer from a pipe, as people do."""
        site = f"ORION_BASE_URL=http://127.0.0.1:{SITE_PORT}"
        settings = [f"{name}={value}" for name, value in environment.items()]
        return self.run("env", site, *settings, "sh", "-s", "--", *arguments, stdin=INSTALLER.read_text(), check=check)

    def set_up(self) -> None:
        """Write the configuration that `orion setup --server` would."""
        folder = self.state / "etc" / "orion"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").touch(mode=0o600)
        (folder / "config.json").write_text(json.dumps(CONFIG))

    def enable(self) -> None:
        """Start the agent now and at every boot."""
        self.run("systemctl", "enable", "--now", "orion-agent")

    def script(self, name: str) -> dict[str, Any]:
        """Return what the agent says about a script."""
        shown: dict[str, Any] = json.loads(self.run("orion", "script", "show", name, "--json").stdout)
        return shown

    def add_writer(self) -> int:
        """Add and start a script of numbered lines, by a name that none had before; return its pid."""
        self._writers += 1
        self.writer = f"writer-{self._writers}"
        self.run("orion", "script", "add", self.writer, WRITER, "--cwd", "/tmp", "--set", "multiline=false")
        self.wait_for(f"{self.writer} runs", lambda: self.writer_pid() is not None)
        pid = self.writer_pid()
        assert pid is not None
        return pid

    def writer_pid(self) -> int | None:
        """Return the pid that the writer runs as, None when it does not."""
        pid: int | None = self.script(self.writer).get("pid")
        return pid

    def remove_script(self, name: str) -> None:
        """Stop and forget a script, where it is there."""
        self.run("orion", "script", "remove", name, check=False)

    def is_up(self) -> bool:
        """Tell whether the agent answers."""
        return self.run("orion", "ping", check=False).returncode == 0

    def program(self) -> str:
        """Return which installed program the running agent is."""
        return self.run("readlink", f"/proc/{self.main_pid('orion-agent')}/exe").stdout.strip()

    def arrived(self) -> int:
        """Return how many of the writer's lines have arrived."""
        self._arrivals.read()
        return self._arrivals.count(self.writer)

    def messages(self) -> list[str]:
        """Return what has arrived of the writer, in order, each entry once however often it was sent."""
        self._arrivals.read()
        return self._arrivals.of(self.writer)

    def heartbeats(self) -> list[dict[str, Any]]:
        """Return the heartbeats that have arrived."""
        path = self.kept / "heartbeats"
        return [json.loads(line) for line in complete_lines(path.read_bytes())] if path.exists() else []

    def forget_lines(self) -> None:
        """Empty what has arrived."""
        for name in ("entries", "heartbeats", "alerts"):
            (self.kept / name).unlink(missing_ok=True)
        self._arrivals = Arrivals(self.kept / "entries")

    def agents_processes(self) -> list[str]:
        """Return the command lines of all processes in the unit's cgroup."""
        script = "find /sys/fs/cgroup/system.slice/orion-agent.service -name cgroup.procs -exec cat {} + 2>/dev/null"
        pids = self.run("sh", "-c", script, check=False).stdout.split()
        return [self.run("cat", f"/proc/{pid}/cmdline", check=False).stdout.replace("\0", " ") for pid in pids]


@contextmanager
def running(releases: Path) -> Iterator[Server]:
    """Yield a booted server with the newest release installed, set up, and a backend that listens."""
    with Server(releases) as server:
        server.start_backend()
        server.install("--version", "1.0.0")
        server.set_up()
        server.enable()
        server.wait_for("the agent answers", server.is_up)
        yield server
