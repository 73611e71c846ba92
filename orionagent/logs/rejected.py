"""Owns `rejected.jsonl`: the entries that the backend will never take, for a person to look at.

Knows nothing of why the backend refused; it keeps two generations of at most 2 MiB.
"""

import logging
import os

import msgspec

log = logging.getLogger(__name__)

MOST_BYTES = 2 << 20
MODE = 0o600


class RejectedFile:
    """Appends rejected lines. Sole writer of the file. A disk that refuses is logged, never raised."""

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, lines: bytes, *, instance: str, at: str, reason: str) -> None:
        """Write entry or alert lines with the reason; blocks for the disk."""
        text = msgspec.json.encode({"at": at, "instance": instance, "reason": reason})[:-1]
        body = b"".join(b'%b,"entry":%b}\n' % (text, line) for line in lines.split(b"\n") if line)
        try:
            if self._size() + len(body) > MOST_BYTES:
                os.replace(self._path, f"{self._path}.1")
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("cannot rotate %s: %s", self._path, error)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
            try:
                os.write(descriptor, body)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.error("cannot write %s: %s; the rejected entries are only counted", self._path, error)

    def _size(self) -> int:
        return os.stat(self._path).st_size
