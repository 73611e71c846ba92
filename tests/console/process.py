"""Owns a console running as its own process, for tests of any folder that need a real backend."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gevent
import msgspec
import requests

START = "import sys; from orionagent.console.serve import serve; serve(*sys.argv[1:])"


class ConsoleProcess:
    """A console on a free port of loopback; `call` talks to it with its own token unless told otherwise."""

    def __init__(self, folder: Path, *, port: int = 0, dashboard: str | None = None) -> None:
        self.folder = folder
        self.output = folder / "console.out"
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [f"127.0.0.1:{port}", str(folder / "data"), *([dashboard] if dashboard else [])]
        with open(self.output, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, *arguments], stdout=output, stderr=subprocess.STDOUT
            )
        self.url, self.token = self._wait_until_announced()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self.stop()

    def _wait_until_announced(self) -> tuple[str, str]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            lines = self.output.read_text(encoding="utf-8").splitlines()
            if len(lines) >= 3:
                return lines[0].rpartition(" ")[2], lines[1].rpartition(" ")[2]
            if self._process.poll() is not None:
                raise AssertionError(f"the console ended: {lines}")
            gevent.sleep(0.02)
        raise AssertionError("the console did not announce itself")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        os.kill(self._process.pid, number)
        deadline = time.monotonic() + 20
        while self._process.poll() is None:
            assert time.monotonic() < deadline, "the console does not stop"
            gevent.sleep(0.01)
        return self._process.returncode

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> requests.Response:
        """Make one request; `body` is sent as JSON, `raw` as it is; an empty token sends none."""
        token = self.token if token is None else token
        sent = {"Content-Type": "application/json"} | (headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = raw if raw is not None else None if body is None else msgspec.json.encode(body)
        # A connection per call: a kept one would outlive the test that opened it.
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, data=data, headers=sent, timeout=30, allow_redirects=False)

    def get(self, path: str, *, token: str | None = None) -> Any:
        """Return the decoded answer to a GET that must succeed."""
        reply = self.call("GET", path, token=token)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, body: Any = None, *, token: str | None = None, status: int | None = None) -> Any:
        """Return the decoded answer to a POST that must succeed (with `status`, if given)."""
        reply = self.call("POST", path, body, token=token)
        assert reply.ok if status is None else reply.status_code == status, (reply.status_code, reply.text)
        return reply.json() if reply.content else None
