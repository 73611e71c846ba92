"""A backend for one browser login, in a process of its own: `python login_backend.py`.

Prints its address. `POST /api/auth/cli/init` begins a login; the page it names is confirmed by GET, which sends
the browser to the callback as the contract has it. Everything a set-up then asks is answered for TOKEN.
"""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "user-token-of-ann"
STATE = "11111111-2222-3333-4444-555555555555"


class LoginBackend:
    """The process; a context manager that leaves nothing behind."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-I", __file__, *arguments], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()

    def __enter__(self) -> "LoginBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class Handler(BaseHTTPRequestHandler):
    """The routes. `with_state` puts the login's state into the callback, as a careful backend does."""

    port = 0
    with_state = True

    def do_GET(self) -> None:
        if self.path.startswith("/auth/cli?state="):
            callback = f"http://127.0.0.1:{type(self).port}/callback?token={TOKEN}"
            self.send_response(302)
            self.send_header("Location", callback + (f"&state={STATE}" if self.with_state else ""))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "no", "message": "who are you?"})
        elif self.path == "/api/auth/me":
            self.answer(200, {"user": {"email": "ann@example.org"}})
        elif self.path == "/api/projects":
            self.answer(200, [{"name": "shop", "label": "The Shop"}])
        else:
            self.answer(404, {"error": "no", "message": "nothing here"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/auth/cli/init":
            type(self).port = body["callbackPort"]
            self.answer(200, {"state": STATE, "loginUrl": f"{self.server_url()}/auth/cli?state={STATE}"})
        elif self.path == "/api/projects/shop/tokens":
            self.answer(201, {"token": "agent-token"})
        elif self.path == "/api/v1/agent/heartbeat":
            good = self.headers.get("Authorization") == "Bearer agent-token"
            self.answer(200 if good else 401, {})
        else:
            self.answer(404, {"error": "no", "message": "nothing here"})

    def server_url(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


if __name__ == "__main__":
    Handler.with_state = "--without-state" not in sys.argv
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
