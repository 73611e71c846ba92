"""A backend for kills: it has written every entry to a file before it answers, and starts again on that file.

    python -S durable.py PORT FILE      prints its port; 0: any

Rows of the file: `INSTANCE ENTRY`. One that a kill cut short stands alone on its row and parses as nothing.
"""

import os
import socket
import sys
import threading


def serve(connection: socket.socket, kept: int) -> None:
    """Answer one connection's requests until it ends."""
    with connection, connection.makefile("rb") as file:
        while line := file.readline():
            path = line.split(b" ")[1]
            headers = {}
            while (header := file.readline().strip()) != b"":
                name, _, value = header.partition(b":")
                headers[name.lower()] = value.strip()
            body = file.read(int(headers.get(b"content-length", b"0")))
            if path.endswith(b"/agent/logs"):
                instance = headers[b"orion-instance"]
                os.write(kept, b"".join(b"%b %b\n" % (instance, entry) for entry in body.splitlines()))
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def main() -> None:
    """Serve until killed."""
    listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
    kept = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(kept, b"\n")
    print(listening.getsockname()[1], flush=True)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve, args=(connection, kept), daemon=True).start()


main()
