"""Owns the campaigns in which agent and backend are killed and faulted at random while an application writes on.

Knows nothing of what a test expects of the outcome: it returns figures.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec

from tests.end_to_end.daemon import REPOSITORY, Daemon, wait_until
from tests.faults.fixtures import FaultyBackend
from tests.faults.ledger import Account

WRITER = str(REPOSITORY / "tests" / "faults" / "numbered.py")
LOGS = "/agent/logs"
FINISH_S = 120.0
ABSENCE_EVERY = 6
"""So often one part stays away for seconds: agent and backend in turn."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the lines of one campaign."""

    rounds: int
    agent_kills: int
    backend_kills: int
    instances: int
    written: int
    received: int
    lost: int
    twice: int
    late: int
    resent: int
    reported: int
    counted: int
    unexplained: int
    gaps: list[tuple[str, int, int]]
    remarks: list[str]

    def __str__(self) -> str:
        kills = f"rounds {self.rounds}: agent killed {self.agent_kills}, backend killed {self.backend_kills}, "
        return (
            f"{kills if self.rounds else ''}instances {self.instances}\n"
            f"  lines written {self.written}, received {self.received}, lost {self.lost}\n"
            f"  twice {self.twice}, out of order {self.late} after de-duplication ({self.resent} resent)\n"
            f"  reported drops {self.reported} (droppedTotal {self.counted}), unexplained gaps {self.unexplained}"
        )


class Campaign:
    """One agent's root, one backend's ledger and one application through many rounds.

    Sole owner of the backend; `daemon` is the test's. Close it in the end.
    """

    def __init__(self, daemon: Daemon, root: Path, seed: int) -> None:
        self._daemon = daemon
        self._root = root
        self._draw = random.Random(seed)
        self._ledger = str(root / "ledger")
        self._rounds = self._agent_kills = self._backend_kills = 0
        self._config: dict[str, Any] = {}
        self._token = "t0"
        self.account = Account(self._ledger)
        self.backend = FaultyBackend(ledger=self._ledger)
        self.notes: list[str] = []
        self._stood = (0, 0.0)
        self.idle_mb = 0.0

    def start(self, *, rate: int, count: int = 0, ragged: bool = True, **config: Any) -> None:
        """Start the agent with `config` and the application at `rate` lines a second on each stream."""
        self._config = {"apiUrl": self.backend.url, "heartbeatInterval": 1000, **config}
        self._daemon.configure({"token": self._token, **self._config})
        self._be_good()
        self._daemon.start()
        self.idle_mb = self.memory_mb()
        seed = self._draw.randrange(1, 1 << 30) if ragged else 0
        command = f"{sys.executable} -S {WRITER} {self._root}/progress {rate} {count} {seed}"
        self._pid: int = self._daemon.call("script:add", name="writer", command=command, cwd="/tmp")["pid"]
        wait_until(lambda: self.progress()[0] > 0, "the application's first line")

    def progress(self) -> tuple[int, int, bool]:
        """Return the last complete line on stdout, on stderr, and whether the application has ended writing."""
        try:
            fields = Path(self._root, "progress").read_text(encoding="ascii").split()
        except FileNotFoundError:
            return 0, 0, False
        return (int(fields[0]), int(fields[1]), fields[2] == "1") if len(fields) == 3 else (0, 0, False)

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Return the agent's resident memory now, or with VmHWM at its peak, in MiB."""
        assert self._daemon.process is not None
        status = Path(f"/proc/{self._daemon.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024

    def held(self) -> list[tuple[float, float]]:
        """Return when (monotonic) each slow write of the application ended and how many seconds it took."""
        text = Path(self._root, "progress.held").read_text(encoding="ascii")
        return [(float(line.split()[0]), float(line.split()[1])) for line in text.splitlines()]

    # Rounds

    def play(self, rounds: int) -> None:
        """Go through so many rounds: a fault, a kill or both, at random moments; now and then a long absence."""
        for _ in range(rounds):
            self._rounds += 1
            absence, rest = divmod(self._rounds, ABSENCE_EVERY)
            if rest == 0:
                self._part(backend_first=absence % 2 == 0)
                continue
            with self._fault():
                self._nap(0.5)
                if self._draw.random() < 0.7:
                    self._kill_agent()
                self._nap(0.3)
            self._nap(0.3)

    def _part(self, *, backend_first: bool) -> None:
        """Kill both at once; one comes back and goes on alone, the other follows seconds later."""
        self.notes.append(f"both killed, {'backend' if backend_first else 'agent'} back first")
        self._agent_kills += 1
        self._backend_kills += 1
        self._daemon.kill()
        self.backend.kill()
        back = [self._restart_backend, self._daemon.start]
        first, second = back if backend_first else reversed(back)
        first()
        gevent.sleep(self._draw.uniform(2.5, 3.5))
        second()

    def _restart_backend(self) -> None:
        self.backend = FaultyBackend(port=self.backend.port, ledger=self._ledger)
        self._be_good()

    def _be_good(self) -> None:
        """Have the backend do nothing wrong, and take the token in force and no other."""
        self.backend.rule(tokens=[self._token])

    def _nap(self, most_s: float) -> None:
        gevent.sleep(self._draw.uniform(0, most_s))

    def _kill_agent(self) -> None:
        """Kill the agent, now and then again while it starts."""
        while True:
            self._agent_kills += 1
            self._daemon.kill()
            self._nap(0.2)
            if self._draw.random() < 0.7:
                break
            self._daemon.spawn()
            self._nap(0.8)
        self._daemon.start()

    @contextlib.contextmanager
    def _fault(self) -> Iterator[None]:
        """Let the backend do something wrong for a while."""
        draw = self._draw
        status = {"status": 429, "headers": {"Retry-After": "1"}}
        faults: list[tuple[str, dict[str, Any]]] = [
            ("drop-answer", {"times": draw.randint(1, 3)}),
            ("truncate-answer", {"times": draw.randint(1, 3)}),
            ("hang-before-reading", {"times": 1}),
            ("hang-after-reading", {"times": 1, "stored": draw.random() < 0.5}),
            ("delay", {"times": 3, "seconds": draw.uniform(0.1, 1.5)}),
            ("status", {**status, "times": draw.randint(1, 5)}),
            ("status", {"status": draw.choice((408, 500, 502, 503)), "times": 2, "stored": draw.random() < 0.5}),
            ("reset-mid-body", {"times": 2, "after_bytes": draw.randint(0, 5000)}),
            ("close-mid-body", {"times": 2, "after_bytes": draw.randint(0, 5000)}),
            ("reset-on-accept", {"times": 3}),
            ("garbage", {"times": 1, "body": "HTTP/1.1 2x0 so\r\n\r\n"}),
        ]
        kind = draw.choice(("none", "refuse", "kill", "too-large", "token", *(["fault"] * 6)))
        what = draw.choice(faults)
        self.notes.append(kind if kind != "fault" else str(what))
        if kind == "refuse":
            self.backend.refuse()
        elif kind == "kill":
            self._backend_kills += 1
            self.backend.kill()
        elif kind == "too-large":
            self.backend.rule(tokens=[self._token], max_bytes=draw.randint(20_000, 60_000))  # one long line fits
        elif kind == "token":
            forbidden, self._token = self._token, f"t{self._rounds}"
            self.backend.rule(**{"forbidden_tokens": [forbidden]} if draw.random() < 0.5 else {"tokens": [self._token]})
        elif kind == "fault":
            path = "" if what[0] == "reset-on-accept" else LOGS
            self.backend.fail(what[0], path=path, **what[1])  # type: ignore[arg-type]
        yield
        if kind == "refuse":
            self.backend.listen()
        elif kind == "kill":
            self._restart_backend()
        elif kind == "token":
            Path(self._daemon.paths.config).write_text(json.dumps({"token": self._token, **self._config}), "utf-8")
            self._daemon.call("reload")
        self._be_good()
        self.backend.clear()

    # The end

    def end_writing(self, timeout_s: float = FINISH_S) -> None:
        """Have the application write no more; return once its last line is in the pipe."""
        os.kill(self._pid, signal.SIGUSR1)
        wait_until(lambda: self.progress()[2], "the application's last line", timeout_s)

    def finish(self, timeout_s: float = FINISH_S) -> Outcome:
        """Let the application end and the agent deliver; return what became of its lines."""
        self.end_writing(timeout_s)
        return self.await_outcome(timeout_s)

    def await_outcome(self, timeout_s: float = FINISH_S) -> Outcome:
        """Wait until the application has written everything and nothing is on its way any more."""
        wait_until(lambda: self.progress()[2], "the application's last line", timeout_s)
        wait_until(self._settled, "everything delivered or reported", timeout_s)
        return self.outcome()

    def _settled(self) -> bool:
        """Tell whether every line is accounted for; lines still in a pipe are neither received nor dropped."""
        gevent.sleep(0.1)
        out, err, _ = self.progress()
        status = self._daemon.call("status")["buffer"]
        account = self.account.read()
        if status["entries"] or account.dropped != status["droppedTotal"]:
            return False
        return account.received + account.dropped >= out + err or self._stands_still()

    def _stands_still(self) -> bool:
        """Tell whether nothing has come for so long that what is missing is lost."""
        now = time.monotonic()
        found = self.account.received
        if found != self._stood[0]:
            self._stood = (found, now)
        return now - self._stood[1] > 5.0

    def outcome(self) -> Outcome:
        """Return the figures as they are."""
        out, err, _ = self.progress()
        account = self.account.read()
        gaps = [
            (name, *gap)
            for name, written in (("stdout", out), ("stderr", err))
            if written
            for gap in (account.streams[name].gaps(written) if name in account.streams else [(1, written)])
        ]
        lost = sum(last - first + 1 for _, first, last in gaps)
        return Outcome(
            rounds=self._rounds,
            agent_kills=self._agent_kills,
            backend_kills=self._backend_kills,
            instances=account.instances,
            written=out + err,
            received=account.received,
            lost=lost,
            twice=sum(len(stream.twice) for stream in account.streams.values()),
            late=sum(stream.disordered() for stream in account.streams.values()),
            resent=account.duplicates,
            reported=account.dropped,
            counted=self._daemon.call("status")["buffer"]["droppedTotal"],
            unexplained=max(lost - account.dropped, 0),
            gaps=gaps,
            remarks=account.remarks,
        )

    def close(self) -> None:
        """End the backend."""
        self.backend.close()


def most_held_s(held: list[tuple[float, float]], *, window_s: float = 60.0, least_s: float = 0.0) -> float:
    """Return the most seconds that writes, of those that took `least_s`, took within any window."""
    most = within = 0.0
    window: deque[tuple[float, float]] = deque()
    for end, took in held:
        if took < least_s:
            continue
        window.append((end, took))
        within += took
        while window[0][0] <= end - window_s:
            within -= window.popleft()[1]
        most = max(most, within)
    return most
