"""The fast path says and asks exactly what the docopt path does, and imports next to nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orionagent import __version__
from tests.scripted_daemon import ScriptedDaemon, ok, refusal

REPOSITORY = Path(__file__).parents[1]
LAUNCHER = str(REPOSITORY / "bin" / "orion")
FAST = [sys.executable, "-I", "-S", LAUNCHER]
SLOW = [
    sys.executable,
    "-I",
    "-c",
    "import sys; from orionagent.cli import main; sys.exit(main(sys.argv[1:]))",
]
HEAVY = {"gevent", "requests", "psutil", "msgspec", "ssl", "subprocess", "dataclasses", "logging"}

INPUTS: tuple[list[str | bytes], ...] = (
    ["log", "info", "Deploy complete"],
    ["log", "error", "Disk", "space", "low"],
    ["log", "info", "-x", "--json", "--help"],
    ["log", "info", ""],
    ["log", "info", "--", "-x"],
    ["log", "info", "--"],
    ["log", "warn", 'quote " backslash \\ tab \t newline \n bell \x07'],
    ["log", "warn", "gr\u00fc\u00dfe \u4e16\u754c \U0001f680 \u2028"],
    ["log", "warn", b"undecodable \xff\xfe bytes"],
    ["log", "--", "info", "-x"],
    ["log", "--from=web", "--tag=a", "info", "x"],
    ["log", "--json", "info", "x"],
    ["log", "info"],
    ["log"],
    ["log", "eror", "x"],
    ["status"],
    ["status", "--json"],
    ["status", "--wach"],
    ["status", "extra"],
    ["ping"],
    ["ping", "--json"],
    ["ping", "now"],
    ["version"],
    ["version", "--json"],
    ["--version"],
)
STATUS = ok({"text": "agent  0.1.0 \x1b[32mrunning\x1b[0m \u4e16\n"})
GOOD = {
    "log": ok({"seq": 7}),
    "status": STATUS,
    "ping": ok({"pong": True, "version": "9.9.9"}),
    "version": ok({"version": __version__, "python": "3.11.2", "build": None}),
}
DAEMONS: dict[str, dict[str, Any]] = {
    "good": GOOD,
    "other version": GOOD | {"version": ok({"version": "9.9.9"})},
    "other field order": GOOD | {"log": {"data": {"seq": 7}, "ok": True}},
    "refusing": {cmd: refusal(f"cannot {cmd}: no; do \u00fc", "not-permitted") for cmd in GOOD},
    "busy": {cmd: refusal("cannot log: too many; wait", "busy") for cmd in GOOD},
    "talking nonsense": {cmd: [1, 2] for cmd in GOOD} | {"log": "x"},
    "hanging up": dict.fromkeys(GOOD),
}


def run(command: list[str], arguments: Sequence[str | bytes], root: Path) -> tuple[int, bytes, bytes]:
    environment = {"ORION_ROOT": str(root), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(params=list(DAEMONS))
def daemon(request: pytest.FixtureRequest, root: Path) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(root, DAEMONS[request.param]) as found:
        yield found


def test_both_paths_give_the_same_answer_and_ask_the_same_question(daemon: ScriptedDaemon) -> None:
    for arguments in INPUTS:
        fast = run(FAST, arguments, daemon.root)
        asked_fast = daemon.take_requests()
        slow = run(SLOW, arguments, daemon.root)
        asked_slow = daemon.take_requests()
        assert fast == slow, arguments
        # What the fast path hands over after an unusual reply, it has asked once before.
        assert asked_slow in (asked_fast, asked_fast[len(asked_fast) // 2 :]), arguments


def test_both_paths_give_the_same_answer_without_a_daemon(root: Path) -> None:
    for arguments in INPUTS:
        assert run(FAST, arguments, root) == run(SLOW, arguments, root), arguments


def test_a_good_answer_is_asked_for_once(root: Path) -> None:
    with ScriptedDaemon(root, GOOD) as daemon:
        for arguments in (["log", "info", "x"], ["status"], ["ping"], ["version"]):
            code, _, errors = run(FAST, arguments, root)
            assert (code, errors) == (0, b"")
            assert len(daemon.take_requests()) == 1


@pytest.mark.parametrize("arguments", [["log", "info", "x"], ["status"], ["version"], ["ping"]])
def test_the_fast_path_imports_only_itself_and_the_socket(arguments: Sequence[str | bytes], root: Path) -> None:
    with ScriptedDaemon(root, GOOD):
        command = [sys.executable, "-I", "-S", "-X", "importtime"]
        bare = imported(run([*command, "-c", "pass"], [], root)[2])
        fast = imported(run([*command, LAUNCHER], arguments, root)[2]) - bare
    assert fast <= {"orionagent", "orionagent.fastpath", "_socket", "_json"}


@pytest.mark.parametrize("arguments", [["status", "--json"], ["script", "list"], ["logs"], ["ping", "--json"]])
def test_the_client_path_stays_clear_of_the_daemon_s_libraries(arguments: Sequence[str | bytes], root: Path) -> None:
    replies = GOOD | {"script:list": ok([]), "logs:tail": ok({"entries": []})}
    with ScriptedDaemon(root, replies):
        code, _, errors = run([sys.executable, "-I", "-S", "-X", "importtime", LAUNCHER], arguments, root)
    assert code == 0
    assert not {name.split(".")[0] for name in imported(errors)} & HEAVY


def imported(report: bytes) -> set[str]:
    """Return the module names of an `-X importtime` report."""
    lines = report.decode().splitlines()
    return {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize("target", ["orion", "linked"])
def test_the_launcher_runs_from_a_checkout_and_through_a_symbolic_link(target: str, root: Path) -> None:
    launcher = LAUNCHER
    if target == "linked":
        (root / "orion").symlink_to(LAUNCHER)
        launcher = str(root / "orion")
    done = subprocess.run(
        [launcher, "version"], env={"PATH": os.environ["PATH"], "ORION_ROOT": str(root)}, capture_output=True,
        timeout=30, check=True, cwd="/",
    )  # fmt: skip
    assert done.stdout == f"orion-agent {__version__}\n".encode()
