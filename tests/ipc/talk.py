"""A caller for the tests: raw bytes, JSON lines or MessagePack-RPC over a real socket, each wait with a deadline."""

import json
import socket
from types import TracebackType
from typing import Any

import msgpack

DEADLINE_S = 20.0


class Talk:
    """One connection to the daemon under test."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(path)
        self.rest = b""
        self.unpacker = msgpack.Unpacker(strict_map_key=False)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_line(self) -> dict[str, Any]:
        while b"\n" not in self.rest:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError
            self.rest += chunk
        line, self.rest = self.rest.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def ask(self, **request: Any) -> dict[str, Any]:
        self.send(json.dumps(request).encode() + b"\n")
        return self.read_line()

    def read_message(self) -> list[Any]:
        while True:
            try:
                message: list[Any] = next(self.unpacker)
                return message
            except StopIteration:
                chunk = self.socket.recv(65536)
                if not chunk:
                    raise EOFError from None
                self.unpacker.feed(chunk)

    def ask_rpc(self, msgid: int, method: str, params: Any) -> list[Any]:
        self.send(msgpack.packb([0, msgid, method, params]))
        return self.read_message()

    def is_closed(self) -> bool:
        """Tell whether the daemon closed, after reading what it still said."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return True
