"""What every test gets: a patched interpreter, a root of its own, and a check that nothing is left behind."""

from gevent import monkey

monkey.patch_all(os=False, signal=False, subprocess=False)

import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import hypothesis  # noqa: E402
import pytest  # noqa: E402

from orionagent.paths import Paths  # noqa: E402
from tests.effort import examples  # noqa: E402

# How long an example takes says more of what else the machine does than of us.
hypothesis.settings.register_profile("shared machine", deadline=None, max_examples=examples(100))
hypothesis.settings.load_profile("shared machine")

pytest_plugins = (
    "tests.end_to_end.daemon",
    "tests.faults.fixtures",
    "tests.faults.figures",
    "tests.faults.fdstore",
    "tests.packaging.frozen",
    "tests.scripts.house",
)

# A suite that was started in the background has these ignored, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)


def child_pids() -> set[int]:
    """Return the pids of this process's children, zombies included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{task}/children").read_text(encoding="ascii")
        except FileNotFoundError:
            continue
        found.update(int(pid) for pid in text.split())
    return found


def open_descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def is_lasting(target: str) -> bool:
    """Tell whether a descriptor belongs to the interpreter, the hub or its thread pool rather than a test."""
    return target.startswith(("anon_inode:[event", "/dev/", "anon_inode:[timerfd")) or ".hypothesis" in target


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a child process or an open descriptor behind."""
    children, descriptors = child_pids(), open_descriptors()
    yield
    with gevent.Timeout(5.0, False):  # type: ignore[arg-type]
        while True:
            new_children = child_pids() - children
            new_descriptors = {
                fd: target
                for fd, target in open_descriptors().items()
                if descriptors.get(fd) != target and not is_lasting(target)
            }
            if not new_children and not new_descriptors:
                return
            gevent.sleep(0.02)
    pytest.fail(f"left behind: children {new_children}, descriptors {new_descriptors}")


@pytest.fixture
def root() -> Iterator[Path]:
    """Yield an empty ORION_ROOT with a path short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="or-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def paths(root: Path) -> Paths:
    """Return the file locations below `root`, with the folders of a set-up server."""
    found = Paths(str(root))
    for folder in (found.etc, found.run, os.path.dirname(found.log)):
        os.makedirs(folder, mode=0o755)
    return found
