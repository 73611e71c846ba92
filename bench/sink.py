"""Owns the backend of a benchmark: takes everything, answers at once, counts the marked lines afterwards.

Knows nothing of the agent but the routes it calls. Runs as its own process: `python3 -I sink.py` prints its
port. GET /_stats tells what has arrived, POST /_reset starts anew.
"""

import json
import queue
import re
import socket
import threading
import time
import zlib

AT = re.compile(rb" at=(\d{19}) ")


class Sink:
    """Counts what arrives. Bodies are counted by a thread of its own, so that no answer waits for it."""

    def __init__(self) -> None:
        self._bodies: queue.Queue[tuple[int, bytes, bool]] = queue.Queue(maxsize=256)
        self._lock = threading.Lock()
        self.reset()
        threading.Thread(target=self._count, daemon=True).start()

    def reset(self) -> None:
        with self._lock:
            self._lines = self._posts = self._bytes = self._last_ns = 0
            self._delays_ms: list[float] = []

    def stats(self) -> bytes:
        self._bodies.join()
        with self._lock:
            delays = sorted(self._delays_ms)
            found = {
                "lines": self._lines,
                "posts": self._posts,
                "bytes": self._bytes,
                "lastNs": self._last_ns,
                "p50Ms": delays[len(delays) // 2] if delays else None,
                "p99Ms": delays[len(delays) * 99 // 100] if delays else None,
            }
        return json.dumps(found).encode()

    def _count(self) -> None:
        while True:
            now_ns, body, is_gzip = self._bodies.get()
            text = zlib.decompress(body, 31) if is_gzip else body
            with self._lock:
                self._lines += text.count(b" mark=")
                self._posts += 1
                self._bytes += len(body)
                self._last_ns = now_ns
                # The delay of each line where there are few, of the first and last one in a burst.
                stamps = AT.findall(text) if len(text) < 1 << 18 else [AT.findall(text[:1000])[0]]
                self._delays_ms += [(now_ns - int(stamp)) / 1e6 for stamp in stamps]
            self._bodies.task_done()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        """Return the response body; b"" means 204."""
        if path == "/_stats":
            return self.stats()
        if path == "/_reset":
            self._bodies.join()
            self.reset()
        elif path.endswith("/agent/logs"):
            self._bodies.put((time.time_ns(), body, headers.get("content-encoding") == "gzip"))
        elif method == "GET":
            return b'{"commands":[]}'
        return b""


def read_body(stream, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return stream.read(int(headers.get("content-length", "0")))
    parts = []
    while size := int(stream.readline().split(b";")[0], 16):
        parts.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(parts)


def serve(connection: socket.socket, sink: Sink) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb", buffering=1 << 18) as stream:
        while request := stream.readline():
            words = request.decode("latin-1").split()
            if len(words) != 3:
                return  # a client that begins with TLS
            method, path, _ = words
            headers = {}
            while (line := stream.readline().strip()) != b"":
                key, _, value = line.decode("latin-1").partition(":")
                headers[key.strip().lower()] = value.strip()
            if headers.get("expect"):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = sink.answer(method, path.split("?")[0], headers, read_body(stream, headers))
            status = "200 OK" if body else "204 No Content"
            length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
            connection.sendall(f"HTTP/1.1 {status}\r\n{length}\r\n".encode() + body)


def main() -> None:
    sink = Sink()
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection, sink), daemon=True).start()


if __name__ == "__main__":
    main()
