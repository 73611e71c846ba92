"""Owns the programs that are run under the daemons: one that writes when told to, one that sleeps.

Knows nothing of the daemons.
"""

import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Child:
    """One supervised program; `argv` has no shell syntax."""

    def __init__(self, name: str, folder: Path, *argv: object) -> None:
        self.name = name
        self.folder = folder
        self.argv = [str(word) for word in argv]
        self.command = " ".join(self.argv)

    @property
    def pid(self) -> int:
        return int((self.folder / "ready").read_text(encoding="ascii"))

    @property
    def done_ns(self) -> tuple[int, int] | None:
        """When it began and ended to write, None while it has not."""
        try:
            first, last = (self.folder / "done").read_text(encoding="ascii").split()
        except OSError:
            return None
        return int(first), int(last)


def writer(folder: Path, name: str, mode: str, *arguments: object) -> Child:
    """Return a child that waits for SIGUSR1 and then writes marked lines."""
    own = folder / name
    own.mkdir()
    return Child(name, own, sys.executable, "-I", "-S", HERE / "child.py", mode, own, *arguments)


def quiet(count: int) -> Callable[[Path], list[Child]]:
    """Return what makes `count` children that sleep."""

    def make(folder: Path) -> list[Child]:
        children = []
        for index in range(count):
            own = folder / f"q{index}"
            own.mkdir()
            path = own / "quiet.sh"
            path.write_text(f"echo $$ >{own}/ready\nexec sleep 99999\n", encoding="ascii")
            children.append(Child(f"q{index}", own, "/bin/sh", path))
        return children

    return make
