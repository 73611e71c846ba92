"""Owns one headless Chromium and one page in it, driven over the DevTools protocol."""

import itertools
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import gevent
import msgspec
import requests
from gevent import socket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--window-size=1400,1200",
)
DEADLINE_S = 60.0


class Page:
    """The only page of a browser that belongs to the test; `with Page() as page`."""

    def __init__(self) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="orion-page-", dir="/tmp"))
        with open(self._profile / "output", "wb") as output:
            self._process = subprocess.Popen(
                ["chromium", *OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._socket: Any = None
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._text = ""
        self._open = False
        self.errors: list[str] = []
        """What the page's scripts complained of: uncaught exceptions and console errors."""
        try:
            self._connect()
            for domain in ("Runtime", "Page", "Log"):
                self.send(f"{domain}.enable")
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        # Asked by SIGTERM, the main process ends the others of its tree first.
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            gevent.sleep(0.02)
        # Its helpers may write for a moment longer.
        while self._profile.exists():
            assert time.monotonic() < deadline + 20, f"cannot remove {self._profile}"
            shutil.rmtree(self._profile, ignore_errors=True)
            gevent.sleep(0.02)

    def _connect(self) -> None:
        found = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + DEADLINE_S
        while not (found.exists() and len(found.read_text(encoding="ascii").split()) >= 1):
            assert time.monotonic() < deadline, "chromium does not start"
            assert self._process.poll() is None, (self._profile / "output").read_text(errors="replace")
            gevent.sleep(0.05)
        port = int(found.read_text(encoding="ascii").split()[0])
        with requests.Session() as session:
            session.trust_env = False
            targets = session.get(f"http://127.0.0.1:{port}/json/list", timeout=30).json()
        url = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._socket.sendall(self._protocol.send(Request(host=f"127.0.0.1:{port}", target=urlsplit(url).path)))
        while not self._open:
            self._receive()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Make one DevTools call and return its result."""
        number = next(self._ids)
        text = msgspec.json.encode({"id": number, "method": method, "params": params}).decode()
        self._socket.sendall(self._protocol.send(TextMessage(data=text)))
        with gevent.Timeout(DEADLINE_S, AssertionError(f"no answer to {method}")):
            while number not in self._answers:
                self._receive()
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> None:
        data = self._socket.recv(1 << 20)
        self._protocol.receive_data(data or None)
        for event in self._protocol.events():
            match event:
                case AcceptConnection():
                    self._open = True
                case Ping():
                    self._socket.sendall(self._protocol.send(event.response()))
                case CloseConnection():
                    raise AssertionError("chromium ended")
                case TextMessage():
                    self._text += event.data
                    if event.message_finished:
                        self._take(msgspec.json.decode(self._text))
                        self._text = ""

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        params = message["params"]
        match message["method"]:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression (promises are waited for)."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_until(self, expression: str, timeout_s: float = DEADLINE_S) -> Any:
        """Return the expression's value as soon as it is truthy."""
        deadline = time.monotonic() + timeout_s
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText")
                raise AssertionError(f"never true: {expression}; errors: {self.errors}; the page shows: {shown}")
            gevent.sleep(0.05)

    def wait_for_text(self, text: str, within: str = "body") -> None:
        """Wait until the text is visible within the element."""
        wanted = msgspec.json.encode(text).decode()
        place = msgspec.json.encode(within).decode()
        self.wait_until(f"document.querySelector({place})?.innerText.includes({wanted})")

    def click(self, selector: str) -> None:
        """Click the element once it is there and enabled."""
        wanted = msgspec.json.encode(selector).decode()
        self.wait_until(f"(() => {{ const e = document.querySelector({wanted}); return e && !e.disabled; }})()")
        self.evaluate(f"document.querySelector({wanted}).click()")

    def type(self, selector: str, text: str) -> None:
        """Put text into a field as typing would."""
        self.wait_until(f"!!document.querySelector({msgspec.json.encode(selector).decode()})")
        self.evaluate(f"document.querySelector({msgspec.json.encode(selector).decode()}).focus()")
        self.send("Input.insertText", text=text)
