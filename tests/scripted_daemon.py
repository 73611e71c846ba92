"""A daemon that answers as it was told, in a process of its own: what the command line is tested against.

Run as a program: `python scripted_daemon.py SOCKET REPLIES RECORD`. REPLIES is a JSON file that maps a
command to the list of reply lines for one request; RECORD gets each request line.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Barrier, Thread
from typing import Any


class ScriptedDaemon:
    """The process and what it was asked; a context manager that leaves nothing behind."""

    def __init__(self, root: Path, replies: Mapping[str, Any]) -> None:
        self.root = root
        self.record = root / "requests.jsonl"
        folder = root / "run" / "orion"
        folder.mkdir(parents=True, exist_ok=True)
        script = root / "replies.json"
        lists = {cmd: reply if isinstance(reply, list) else [reply] for cmd, reply in replies.items()}
        script.write_text(json.dumps(lists), encoding="utf-8")
        self.record.write_bytes(b"")
        self.process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(folder / "agent.sock"), str(script), str(self.record)],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self) -> "ScriptedDaemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        (self.root / "run" / "orion" / "agent.sock").unlink(missing_ok=True)

    def take_requests(self) -> list[dict[str, Any]]:
        """Return what was asked since the last call."""
        lines = self.record.read_bytes().splitlines()
        self.record.write_bytes(b"")
        return [json.loads(line) for line in lines]


def ok(data: object) -> dict[str, Any]:
    """Return the reply of a call that went well."""
    return {"ok": True, "data": data}


def refusal(message: str, code: str) -> dict[str, Any]:
    """Return the reply of a call that did not."""
    return {"ok": False, "error": message, "code": code}


def serve(path: str, replies: Mapping[str, Sequence[Any]], record: str) -> None:
    """Answer every connection until killed; a reply of None closes the connection.

    `{"together": 3, "reply": ...}` is only answered when three connections have asked.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(16)
    os.write(1, b"ready\n")
    barriers: dict[str, Barrier] = {}
    for cmd, answers in replies.items():
        if isinstance(answers[0], dict) and "together" in answers[0]:
            barriers[cmd] = Barrier(answers[0]["together"])
    while True:
        connection, _ = listener.accept()
        Thread(target=converse, args=(connection, replies, barriers, record), daemon=True).start()


def converse(
    connection: socket.socket, replies: Mapping[str, Sequence[Any]], barriers: Mapping[str, Barrier], record: str
) -> None:
    """Answer the requests of one connection; a caller may go before it has read everything."""
    with suppress(ConnectionError), connection, connection.makefile("rb") as lines:
        for line in lines:
            with open(record, "ab") as file:
                file.write(line)
            cmd = json.loads(line)["cmd"]
            answers = replies.get(cmd, [None])
            if answers == [None]:
                return
            if cmd in barriers:
                barriers[cmd].wait()
                answers = [answers[0]["reply"]]
            for reply in answers:
                body = json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
                connection.sendall(body.encode() + b"\n")
            if len(answers) > 1:
                return


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")), sys.argv[3])
