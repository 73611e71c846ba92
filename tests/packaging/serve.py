"""Serves a folder on a loopback port of its own and prints the address; a process beside the tests.

A file NAME beside which NAME.cut lies is announced in full and ends in the middle.
"""

import functools
import http.server
import os
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Plain files, and files that end too early."""

    def copyfile(self, source, outputfile):  # type: ignore[no-untyped-def]
        """Send the file, or its first half."""
        path = Path(source.name)
        if path.with_name(path.name + ".cut").exists():
            outputfile.write(source.read(os.path.getsize(path) // 2))
            self.close_connection = True
        else:
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


def main() -> None:
    """Serve sys.argv[1] until killed, at port sys.argv[2] (0 or absent: any)."""
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    handler = functools.partial(Handler, directory=sys.argv[1])
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
