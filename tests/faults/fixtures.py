"""Owns the handle by which tests steer the faulty backend, and its fixtures `faulty` and `start_faulty`."""

import contextlib
import http.client
import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orionagent.config import AgentConfig
from tests.faults.certificates import Mode
from tests.faults.script import Act, Fault, Received, Request, Rules

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0


class FaultyBackend:
    """One faulty backend process. Every method is one call to its control port and cooperates with gevent."""

    def __init__(self, tls: Mode = "off", port: int = 0, ledger: str = "") -> None:
        command = [sys.executable, "-m", "tests.faults.backend", "--tls", tls, "--port", str(port), "--ledger", ledger]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY)
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_TIMEOUT_S)[0]:
            self._process.kill()
            raise TimeoutError("the faulty backend does not start")
        where = json.loads(self._process.stdout.readline())
        self.port: int = where["port"]
        self.ca_file: str | None = where["ca"]
        self.scheme = "http" if tls == "off" else "https"
        self._control = where["control"]

    @property
    def url(self) -> str:
        """The origin to put into `apiUrl`."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def config(self, **changes: Any) -> AgentConfig:
        """Return a configuration that leads here."""
        return AgentConfig(**{"apiUrl": self.url, "token": "test-token", **changes})

    def fail(self, do: Act, **how: Any) -> None:
        """Push one fault (see tests.faults.script.Fault)."""
        self.push([Fault(do=do, **how)])

    def push(self, faults: Sequence[Fault]) -> None:
        """Push faults, to be taken in this order."""
        self._ask("POST", "/faults", faults)

    def clear(self) -> None:
        """Forget the faults still to come and let go of every request that hangs."""
        self._ask("DELETE", "/faults")

    def rule(self, **rules: Any) -> None:
        """Set the lasting rules (see tests.faults.script.Rules); those not given are back at their defaults."""
        self._ask("POST", "/rules", Rules(**rules))

    def refuse(self) -> None:
        """Stop listening and cut every connection."""
        self._ask("POST", "/listen", {"up": False})

    def listen(self) -> None:
        """Listen again, at the same port."""
        self._ask("POST", "/listen", {"up": True})

    def received(self, after: int = 0) -> Received:
        """Return what has arrived, of the entries those from index `after` on."""
        return msgspec.json.decode(self._ask("GET", f"/received?after={after}"), type=Received)

    def requests(self, path: str = "") -> list[Request]:
        """Return the requests whose path ends in `path`."""
        return [found for found in self.received().requests if found.path.partition("?")[0].endswith(path)]

    def messages(self) -> list[str]:
        """Return the messages of all entries, in order of arrival."""
        return [entry["message"] for entry in self.received().entries]

    def wait_for(self, *, timeout_s: float = 20.0, **counts: int) -> Received:
        """Block until so many `requests`, `entries`, `heartbeats`, `alerts` ... have arrived; return everything.

        Raises:
            TimeoutError: they have not; the message holds what has.
        """
        answer = json.loads(self._ask("POST", "/wait", {"counts": counts, "timeout_s": timeout_s}, timeout_s + 10))
        found = self.received()
        if not answer["arrived"]:
            outcomes = [(request.path, request.outcome) for request in found.requests[-20:]]
            raise TimeoutError(f"waited for {counts}; {len(found.entries)} entries, last requests {outcomes}")
        return found

    def kill(self) -> None:
        """End the process by SIGKILL; only what is in its ledger outlives it."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, method: str, path: str, body: object = None, timeout_s: float = 20.0) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else msgspec.json.encode(body))
            answer = connection.getresponse()
            data = answer.read()
        assert answer.status == 200, data
        return data


@pytest.fixture
def start_faulty() -> Iterator[Callable[..., FaultyBackend]]:
    """Return a function that starts further faulty backends; all are ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(tls: Mode = "off") -> FaultyBackend:
            return stack.enter_context(contextlib.closing(FaultyBackend(tls)))

        yield start


@pytest.fixture
def faulty(start_faulty: Callable[..., FaultyBackend]) -> FaultyBackend:
    """Return a running faulty backend over plain http."""
    return start_faulty()
