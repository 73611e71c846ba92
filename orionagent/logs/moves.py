"""Owns where the stretches of a rewritten file went.

Knows nothing of what lies in them.
"""

from array import array
from bisect import bisect_right


class Moves:
    """A table from old offsets to new ones. Three numbers a stretch: there may be hundreds of thousands."""

    def __init__(self) -> None:
        self._olds = array("Q")
        self._news = array("Q")
        self._sizes = array("I")
        self._sorted = True

    def __len__(self) -> int:
        return len(self._olds)

    def add(self, old: int, new: int, size: int) -> None:
        """Note that `size` bytes at `old` are at `new` in the other file."""
        self._sorted = self._sorted and (not self._olds or self._olds[-1] < old)
        self._olds.append(old)
        self._news.append(new)
        self._sizes.append(size)

    def find(self, old: int, size: int) -> int | None:
        """Return where `size` bytes at `old`, all of one stretch, went; None: nowhere."""
        if not self._sorted:
            self._sort()
        index = bisect_right(self._olds, old) - 1
        if index < 0:
            return None
        into = old - self._olds[index]
        return self._news[index] + into if into + size <= self._sizes[index] else None

    def _sort(self) -> None:
        places = sorted(range(len(self._olds)), key=self._olds.__getitem__)
        self._olds, self._news, self._sizes = (
            array(column.typecode, map(column.__getitem__, places)) for column in (self._olds, self._news, self._sizes)
        )
        self._sorted = True
