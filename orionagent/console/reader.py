"""Owns reading in threads of their own: a long search holds up neither devices that send nor other pages.

Knows nothing of tables or of what is searched for. SQLite lets readers go on beside the one writer
(https://www.sqlite.org/wal.html), and Python's module lets go of the interpreter while SQLite works.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from gevent.threadpool import ThreadPool

from orionagent.console.schema import open_for_reading

THREADS = 2
"""Searches at the same time; further ones wait for their turn, and nobody else does."""

Found = TypeVar("Found")


class Reader:
    """Read-only connections to the database of a `Store`, one per thread that has been needed so far."""

    def __init__(self, path: str, threads: int = THREADS) -> None:
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._pool = ThreadPool(threads)

    def __repr__(self) -> str:
        return f"Reader({self._path!r})"

    def ask(self, question: Callable[[sqlite3.Connection], Found]) -> Found:
        """Run `question` in a thread and return its answer; blocks the calling greenlet only.

        It sees everything committed before. It must touch nothing but its connection: it runs beside the loop.

        Raises:
            sqlite3.Error: as the question does.
        """
        answer: Found | sqlite3.Error = self._pool.apply(self._answer, (question,))
        if isinstance(answer, sqlite3.Error):
            raise answer
        return answer

    def _answer(self, question: Callable[[sqlite3.Connection], Found]) -> Found | sqlite3.Error:
        try:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = open_for_reading(self._path)
            try:
                return question(connection)
            finally:
                self._idle.append(connection)
        except sqlite3.Error as error:
            return error  # a pool prints the traceback of what is raised in it; the asker is to decide

    def close(self) -> None:
        """Wait for the questions that are being answered, end the threads, close the connections."""
        self._pool.kill()
        while self._idle:
            self._idle.pop().close()
