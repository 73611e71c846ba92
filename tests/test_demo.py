"""`orion demo` as a newcomer runs it: everything appears, and nothing stays."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
import requests

ORION = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "bin" / "orion")]


class RunningDemo:
    """A demo in a process of its own, and what it has printed so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "demo.out"
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                [*ORION, "demo"], stdout=file, stderr=file, env={"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
            )

    def read(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        found: list[re.Match[str] | None] = [None]

        def is_there() -> bool:
            found[0] = re.search(pattern, self.read(), re.MULTILINE)
            return found[0] is not None

        wait_until(lambda: is_there() or self.process.poll() is not None)
        assert found[0] is not None, f"{pattern} is not in:\n{self.read()}"
        return found[0]

    def pids(self) -> set[int]:
        """Return the processes that belong to this demo, by their environment."""
        found = set()
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and str(self.folder).encode() in Path(f"/proc/{name}/environ").read_bytes():
                    found.add(int(name))
            except OSError:
                continue
        return found


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        gevent.sleep(0.05)


@pytest.fixture
def demo(root: Path) -> Iterator[RunningDemo]:
    found = RunningDemo(root)
    yield found
    if found.process.poll() is None:
        found.process.terminate()
        found.process.wait(60)


def ask(url: str, token: str) -> object:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answer.ok, answer.text
    return answer.json()


def test_a_newcomer_sees_lines_states_and_a_crash_and_ctrl_c_removes_everything(demo: RunningDemo) -> None:
    page = demo.wait_for(r"^  page   (http://\S+)$")[1]
    token = demo.wait_for(r"^  token  (\S+)$")[1]
    demo.wait_for(r" shop info  order \d+ taken$")
    demo.wait_for(r"^state  importer: running, pid \d+")
    demo.wait_for(r"^CRASH  importer: backoff \((exited with 3|killed by SIGABRT)")
    project = f"{page}/api/projects/local"
    wait_until(lambda: "importer" in str(ask(f"{project}/alerts", token)))
    assert "'hostname': 'demo'" in str(ask(f"{project}/servers", token))
    root = demo.wait_for(r"ORION_ROOT=(\S+) (\S+) status$")[1]
    shown = subprocess.run(
        [*ORION, "status"], env={"ORION_ROOT": root, "PATH": os.environ["PATH"]}, capture_output=True, text=True,
        timeout=30, check=True,
    )  # fmt: skip
    assert "shop " in shown.stdout
    assert "connected" in shown.stdout
    demo.process.send_signal(signal.SIGINT)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    assert demo.read().endswith("ending the demo ...\nended; nothing of it is left\n")
    assert "Traceback" not in demo.read()
    assert demo.pids() == set()
    assert [each.name for each in demo.folder.iterdir()] == ["demo.out"]


@pytest.mark.parametrize("when", ["at once", "while it starts", "later"])
def test_a_demo_may_be_ended_at_any_time(when: str, demo: RunningDemo) -> None:
    demo.wait_for({"at once": r"^starting", "while it starts": r"^starting", "later": r"^state  shop"}[when])
    if when == "while it starts":
        wait_until(lambda: any("console.out" in str(path) for path in demo.folder.rglob("*.out")))
    demo.process.terminate()
    assert demo.process.wait(60) == 0
    assert demo.pids() == set()
    assert [each.name for each in demo.folder.iterdir()] == ["demo.out"]


def test_a_demo_that_is_killed_takes_its_processes_along(demo: RunningDemo) -> None:
    demo.wait_for(r"^state  shop: running")
    demo.process.kill()
    demo.process.wait(60)
    wait_until(lambda: not demo.pids())
