"""Owns a backend that fails on demand, as a process of its own: `python -m tests.faults.backend --port 0`.

It takes heartbeats, logs, alerts and commands below /api/v1 like a good backend, and does wrong what it is told
to. It prints one JSON line and then serves until its standard input ends:

    {"port": 40001, "control": 40002, "ca": null}

By hand, with `control` as above:

    curl -d '[{"do": "status", "status": 429, "headers": {"Retry-After": "3"}, "times": 2}]' localhost:40002/faults
    curl -d '[{"do": "hang-after-reading", "path": "/agent/logs", "times": 0}]' localhost:40002/faults
    curl -X DELETE localhost:40002/faults           # forget all faults, let go of what hangs
    curl -d '{"max_bytes": 10000, "poison": "bad"}' localhost:40002/rules
    curl -d '{"up": false}' localhost:40002/listen   # refuse connections; {"up": true} listens again
    curl 'localhost:40002/received?after=0'          # entries unique by (instance, seq), requests, alerts ...
    curl -d '{"counts": {"entries": 100}, "timeout_s": 10}' localhost:40002/wait

A fault is used up by `times` requests (0: until cleared) whose path ends in `path`; faults are taken in the order
they were pushed. What `do` may be:

    reset-on-accept      the connection is reset before a byte is read
    hang-before-reading  the request head is read, the body is not, for `seconds`; then it goes on as usual
    hang-after-reading   all is read; after `seconds` it is answered if `stored`, else the connection is closed: a
                         backend never claims to have what it has not
    reset-mid-body       `after_bytes` of the body are read, then the connection is reset
    close-mid-body       the same, but closed in order
    drop-answer          all is read and kept, then the connection is closed without an answer
    truncate-answer      all is read and kept, a 200 is begun and its body breaks off
    status               answered by `status` with `headers` and `body`; `retry_after_date_s` adds Retry-After as
                         a date so many seconds from now
    redirect             `status` 302, 307 ... to `location`
    drip                 answered 200, one byte every `seconds`
    garbage              answered by `body`, which need not be HTTP
    delay                answered as usual after `seconds`
    flood                answered 200 with a body that does not end

Rules last: `max_bytes` (413 above it), `poison` (400 for a request that contains it), `tokens` (401 for others),
`forbidden_tokens` (403), `missing_routes` and `missing_status` (404, 405 or 415), `heartbeat_answer` and
`commands` (JSON), `clock_skew_s`, `keep_alive`. `--tls good|self-signed|expired|wrong-name` serves https; `ca` is
then the file to trust.
"""

import argparse
import contextlib
import email.utils
import gzip
import json
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import msgspec

from tests.faults.certificates import MODES, make_context
from tests.faults.ledger import Ledger
from tests.faults.script import BEFORE_READING, Fault, Rules, Script

RESET = struct.pack("ii", 1, 0)


class _Gone(Exception):
    """The connection is over."""


class Listener:
    """The faulty side: one thread per connection. Sole owner of its sockets."""

    def __init__(self, script: Script, port: int, tls: ssl.SSLContext | None) -> None:
        self._script = script
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._socket: socket.socket | None = None
        self.port = port
        self.listen()

    def listen(self) -> None:
        """Take connections, at the same port as before."""
        with self._lock:
            if self._socket is not None:
                return
            self._socket = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = self._socket.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def refuse(self) -> None:
        """Stop listening and cut every connection."""
        with self._lock:
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
                self._socket.close()
                self._socket = None
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._script.take(None) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
            return
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                self._script.note_connection(handshake_failed=True)
                connection.close()
                return
        number = self._script.note_connection()
        with self._lock:
            self._open.add(connection)
        file = connection.makefile("rb")
        try:
            while Exchange(self._script, connection, file, number).run():
                pass
        except (OSError, ValueError, _Gone):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            file.close()
            connection.close()


class Exchange:
    """One request and what becomes of it."""

    def __init__(self, script: Script, connection: socket.socket, file: BinaryIO, number: int) -> None:
        self._script = script
        self._connection = connection
        self._file = file
        self._number = number
        self._length = 0

    def run(self) -> bool:
        """Read, fail or answer; return whether another request may follow on this connection."""
        line = self._file.readline()
        if not line:
            return False
        method, path, _ = line.decode("latin-1").split(" ", 2)
        headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        self._length = int(headers.get("content-length", "0"))
        fault = self._script.take(path.partition("?")[0])
        if fault is not None and fault.do in BEFORE_READING:
            self._note(method, path, headers, fault.do)
            self._fail_before_reading(fault)
            fault = None
        body = self._file.read(self._length)
        if len(body) < self._length:
            return False
        return self._finish(method, path, headers, body, fault)

    def _note(self, method: str, path: str, headers: Mapping[str, str], outcome: str) -> Any:
        request = self._script.make_request(method, path, headers, self._length, self._number, outcome)
        self._script.note(request)
        return request

    def _fail_before_reading(self, fault: Fault) -> None:
        if fault.do == "hang-before-reading":
            self._script.hold(fault.seconds)
            return
        self._file.read(min(fault.after_bytes, self._length))
        if fault.do == "reset-mid-body":
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        raise _Gone

    def _finish(self, method: str, path: str, headers: Mapping[str, str], body: bytes, fault: Fault | None) -> bool:
        content = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        token = headers.get("authorization", "").removeprefix("Bearer ")
        request = self._script.make_request(method, path, headers, self._length, self._number, "")
        status = self._script.judge(request, content, token)
        if self._script.rules.max_bytes is not None and self._length <= self._script.rules.max_bytes < len(content):
            status = 200  # the limit is on what travels, not on what it unpacks to
        stores = status == 200 and (fault is None or fault.stored or fault.do in ("delay", "drip"))
        if fault is not None and fault.do in ("drop-answer", "truncate-answer", "flood"):
            stores = True
        if stores:
            self._script.store(request, content)
        self._note(method, path, headers, str(status) if fault is None else fault.do)
        if fault is not None:
            return self._answer_wrongly(fault, status, path)
        return self._answer(status, path)

    def _answer_wrongly(self, fault: Fault, status: int, path: str) -> bool:
        match fault.do:
            case "hang-after-reading" | "delay":
                self._script.hold(fault.seconds)
                if fault.do == "hang-after-reading" and not fault.stored:
                    raise _Gone
                return self._answer(status, path)
            case "drop-answer":
                raise _Gone
            case "truncate-answer":
                self._connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhal")
                raise _Gone
            case "status":
                headers = dict(fault.headers)
                if fault.retry_after_date_s is not None:
                    headers["Retry-After"] = self._date(fault.retry_after_date_s)
                return self._send(fault.status, fault.body.encode(), headers)
            case "redirect":
                code = fault.status if 300 <= fault.status < 400 else 302
                return self._send(code, b"", {"Location": fault.location})
            case "drip":
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":
                    self._connection.sendall(bytes((byte,)))
                    time.sleep(fault.seconds)
                return True
            case "flood":
                self._connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
                while True:
                    self._connection.sendall(b"x" * 65536)
            case _:
                self._connection.sendall(fault.body.encode("latin-1"))
                raise _Gone

    def _answer(self, status: int, path: str) -> bool:
        rules, route = self._script.rules, path.partition("?")[0]
        if status != 200:
            said = json.dumps({"error": f"refused with {status}", "message": f"refused with {status}"})
            return self._send(status, said.encode(), {"Content-Type": "application/json"})
        if route.endswith("/agent/heartbeat") and rules.heartbeat_answer is not None:
            return self._send(200, json.dumps(rules.heartbeat_answer).encode(), {})
        if route.endswith("/agent/commands"):
            return self._send(200, json.dumps({"commands": list(rules.commands)}).encode(), {})
        return self._send(204, b"", {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> bool:
        keep = self._script.rules.keep_alive
        lines = [f"HTTP/1.1 {status} Said", f"Date: {self._date(0.0)}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not keep:
            lines.append("Connection: close")
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return keep

    def _date(self, ahead_s: float) -> str:
        return email.utils.formatdate(time.time() + self._script.rules.clock_skew_s + ahead_s, usegmt=True)


def make_control(script: Script, listener: Listener) -> ThreadingHTTPServer:
    """Return the server by which tests and people steer the faulty one."""

    class Control(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._reply(msgspec.json.encode(script.received(int(query.get("after", ["0"])[0]))))

        def do_DELETE(self) -> None:
            script.clear()
            self._reply(b"{}")

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                reply = self._act(data)
            except (msgspec.MsgspecError, KeyError) as error:
                self._reply(json.dumps({"error": repr(error)}).encode(), 400)
            else:
                self._reply(json.dumps(reply).encode())

        def _act(self, data: bytes) -> dict[str, Any]:
            match self.path:
                case "/faults":
                    script.push(msgspec.json.decode(data, type=list[Fault]))
                case "/rules":
                    script.rules = msgspec.json.decode(data, type=Rules)
                case "/listen":
                    (listener.listen if msgspec.json.decode(data)["up"] else listener.refuse)()
                case "/wait":
                    asked = msgspec.json.decode(data)
                    return {"arrived": script.wait_for(asked["counts"], asked["timeout_s"])}
                case _:
                    raise KeyError(self.path)
            return {}

        def _reply(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Control)
    server.daemon_threads = True
    return server


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="A backend that fails on demand.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", choices=MODES, default="off")
    parser.add_argument("--ledger", help="keep entries in this file instead of in memory; it outlives a SIGKILL")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orf-") as folder:
        tls, authority = make_context(asked.tls, Path(folder)) if asked.tls != "off" else (None, None)
        script = Script(Ledger(asked.ledger) if asked.ledger else None)
        listener = Listener(script, asked.port, tls)
        control = make_control(script, listener)
        threading.Thread(target=control.serve_forever, daemon=True).start()
        where = {"port": listener.port, "control": control.server_port, "ca": authority and str(authority)}
        print(json.dumps(where), flush=True)
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
