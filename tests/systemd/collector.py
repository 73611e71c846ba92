"""A backend that writes what it gets into a folder of the host: `python collector.py FOLDER PORT`.

Appends to `entries` one "instance seq source message" a line, to `heartbeats` and `alerts` one JSON a line.
"""

import gzip
import http.server
import json
import sys
from pathlib import Path
from threading import Lock

FOLDER = Path(sys.argv[1])
LOCK = Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes everything, at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Offer no commands."""
        self.answer(b'{"commands": []}')

    def do_POST(self) -> None:
        """Keep what comes."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        with LOCK:
            if self.path.endswith("/agent/logs"):
                self.keep_entries(data)
            else:
                kind = "heartbeats" if self.path.endswith("/heartbeat") else "alerts"
                with (FOLDER / kind).open("ab") as file:
                    file.write(data + b"\n")
        self.answer(b'{"commands": []}')

    def keep_entries(self, data: bytes) -> None:
        """Write the entries of a batch, shortened to what the tests look at."""
        instance = self.headers["Orion-Instance"]
        lines = []
        for line in data.splitlines():
            entry = json.loads(line)
            lines.append(f"{instance} {entry['seq']} {entry['source']} {entry['message']}\n")
        with (FOLDER / "entries").open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def answer(self, body: bytes) -> None:
        """Say 200."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


def main() -> None:
    """Serve until killed."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler) as server:
        print("listening", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
