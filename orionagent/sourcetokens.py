"""Owns which token an application's entries go under: its folder is asked, at most twice a minute.

Knows nothing of lanes or requests.
"""

import time
from collections.abc import Callable

from orionagent.config import load_source_token

FRESH_S = 30.0


class SourceTokens:
    """The tokens that applications brought along. Sole writer of what is remembered of them.

    `folder_of` returns the folder of the script behind a source; `now` seconds of a monotonic clock.
    """

    def __init__(self, folder_of: Callable[[str], str | None], now: Callable[[], float] = time.monotonic) -> None:
        self._folder_of = folder_of
        self._now = now
        self._known: dict[str, tuple[float, str | None]] = {}

    def find(self, source: str) -> str | None:
        """Return the source's own token, None to use the server's. Reads a small file."""
        now = self._now()
        known = self._known.get(source)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        folder = self._folder_of(source)
        token = load_source_token(folder) if folder else None
        self._known[source] = (now, token)
        return token

    def forget(self) -> None:
        """Ask every folder anew."""
        self._known.clear()
