"""Owns where the agent's own log goes: a file it rotates by size, and the terminal or the journal.

Knows nothing of the applications' logs; these lines never pass through the buffer.
"""

import logging
import os
import sys
from logging.handlers import RotatingFileHandler

from orionagent.paths import Paths
from orionagent.systemd import JournalFormatter, is_journal

MAX_BYTES = 5 * 1024 * 1024
KEPT_FILES = 3
FILE_MODE = 0o640
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _File(RotatingFileHandler):
    """The rotated file, readable by root and its group."""

    def _open(self):  # type: ignore[no-untyped-def]
        stream = super()._open()
        os.chmod(self.baseFilename, FILE_MODE)
        return stream


def configure(paths: Paths, *, to_terminal: bool) -> None:
    """Send the agent's log to its file and, in the foreground or under systemd, to standard error.

    A file that cannot be opened is reported on standard error and done without.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    if to_terminal or is_journal():
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(JournalFormatter() if is_journal() else logging.Formatter(FORMAT))
        root.addHandler(terminal)
    try:
        os.makedirs(os.path.dirname(paths.log), exist_ok=True)
        file = _File(paths.log, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"orion: cannot write the agent's log {paths.log}: {error.strerror}; going on without\n")
        return
    file.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(file)
