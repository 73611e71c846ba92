"""The fast path says and asks exactly what the docopt path does, and imports next to nothing."""

import fcntl
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    ["log", "info", "x", "--"],
    ["log", "info", "--json"],
    ["log", "info", "-"],
    ["log", "info", "   "],
    ["log", "INFO", "x"],
    ["log", b"inf\xff", "x"],
    ["log", "info", "x" * 100_000],
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
    ["status", "--"],
    ["ping"],
    ["ping", "--json"],
    ["ping", "now"],
    ["ping", "-"],
    ["version"],
    ["version", "--json"],
    ["--version"],
    ["version", "--help"],
    ["log", "--help"],
    [],
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


def run(command: list[str], arguments: Sequence[str | bytes], root: Path | str) -> tuple[int, bytes, bytes]:
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


def run_in_terminal(
    command: list[str], arguments: Sequence[str], root: Path, more: dict[str, str]
) -> tuple[int, bytes]:
    """Run a command in a terminal of 97 columns; return its exit code and what is to be seen."""
    terminal, ours = pty.openpty()
    try:
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 97, 0, 0))
        environment = {"ORION_ROOT": str(root), "PATH": os.environ["PATH"], **more}
        done = subprocess.run(
            [*command, *arguments], env=environment, stdin=ours, stdout=ours, stderr=ours, timeout=30, check=False
        )
        os.set_blocking(terminal, False)
        shown = b""
        with suppress(BlockingIOError):
            shown = os.read(terminal, 65536)
        return done.returncode, shown
    finally:
        os.close(terminal)
        os.close(ours)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("good", {"TERM": "xterm"}),
        ("good", {"TERM": "xterm", "NO_COLOR": "1"}),
        ("good", {"TERM": "xterm", "NO_COLOR": ""}),
        ("good", {"TERM": "dumb"}),
        ("good", {}),
        ("refusing", {"TERM": "xterm"}),
        (None, {"TERM": "xterm"}),
    ],
)
def test_both_paths_show_and_ask_the_same_in_a_terminal(kind: str | None, more: dict[str, str], root: Path) -> None:
    wanted = (["status"], ["log", "info", "x"], ["ping"], ["version"], ["status", "--json"])
    if kind is None:
        for arguments in wanted:
            assert run_in_terminal(FAST, arguments, root, more) == run_in_terminal(SLOW, arguments, root, more)
        return
    with ScriptedDaemon(root, DAEMONS[kind]) as daemon:
        for arguments in wanted:
            fast = run_in_terminal(FAST, arguments, root, more)
            asked_fast = daemon.take_requests()
            assert fast == run_in_terminal(SLOW, arguments, root, more), arguments
            assert daemon.take_requests()[-1] == asked_fast[-1], arguments
            assert asked_fast[0].get("columns", 97) == 97


def make_trouble(trouble: str, root: Path) -> str:
    """Put something else in the socket's place; return the ORION_ROOT to use."""
    path = root / "run" / "orion" / "agent.sock"
    path.parent.mkdir(parents=True)
    match trouble:
        case "a file":
            path.write_bytes(b"")
        case "a folder":
            path.mkdir()
        case "nobody listens":
            with socket.socket(socket.AF_UNIX) as left_behind:
                left_behind.bind(str(path))
        case "a file in the way":
            shutil.rmtree(root / "run")
            (root / "run").write_bytes(b"")
        case "too long":
            return f"{root}/{'long/' * 30}"
        case "dots":
            return f"{root}/../{root.name}/./"
        case "relative":
            return os.path.relpath(root)
    return str(root)


@pytest.mark.parametrize(
    "trouble", ["a file", "a folder", "nobody listens", "a file in the way", "too long", "dots", "relative"]
)
def test_both_paths_say_the_same_of_a_socket_that_is_none(trouble: str, root: Path) -> None:
    where = make_trouble(trouble, root)
    for arguments in (["log", "info", "x"], ["status"], ["ping"], ["version"]):
        assert run(FAST, arguments, where) == run(SLOW, arguments, where), arguments


# Root goes through every door: these two keys are taken from it, and it is like anybody else.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, and setpriv to take its rights"
)
@pytest.mark.parametrize("closed", ["agent.sock", "."])
def test_both_paths_say_the_same_of_a_socket_that_is_not_for_this_user(closed: str, root: Path) -> None:
    with ScriptedDaemon(root, GOOD):
        locked = root / "run" / "orion" / closed
        locked.chmod(0)
        os.chown(locked, 65534, 65534)
        for arguments in (["log", "info", "x"], ["status"], ["ping"], ["version"]):
            fast = run([*WITHOUT_RIGHTS, *FAST], arguments, root)
            assert fast == run([*WITHOUT_RIGHTS, *SLOW], arguments, root)
            assert arguments == ["version"] or b"ermission denied" in fast[2], fast


def test_a_good_answer_is_asked_for_once(root: Path) -> None:
    with ScriptedDaemon(root, GOOD) as daemon:
        for arguments in (["log", "info", "x"], ["status"], ["ping"], ["version"]):
            code, _, errors = run(FAST, arguments, root)
            assert (code, errors) == (0, b"")
            assert len(daemon.take_requests()) == 1


IMPATIENT = """
import sys
from orionagent import cli, fastpath
fastpath.TIMEOUT_S = 0.1
fastpath.answer(sys.argv[1:])
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_log_entry_that_is_taken_late_is_sent_once(root: Path) -> None:
    with ScriptedDaemon(root, {"log": {"together": 2, "reply": ok({"seq": 7})}}) as daemon:
        environment = {"ORION_ROOT": str(root), "PATH": os.environ["PATH"]}
        command = [sys.executable, "-I", "-c", IMPATIENT, "log", "info", "x"]
        with subprocess.Popen(command, env=environment) as process:
            wait_for_question(daemon)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)  # ten times as long as any other answer is waited for
            code, _, _ = run(SLOW, ["log", "info", "second"], root)
            assert (code, process.wait(30)) == (0, 0)
        assert [asked["message"] for asked in daemon.take_requests()] == ["x", "second"]


@pytest.mark.parametrize("command", [FAST, SLOW])
def test_ctrl_c_ends_the_wait_for_the_answer_quietly(command: list[str], root: Path) -> None:
    with ScriptedDaemon(root, {"log": {"together": 2, "reply": ok({"seq": 7})}}) as daemon:
        environment = {"ORION_ROOT": str(root), "PATH": os.environ["PATH"]}
        with subprocess.Popen([*command, "log", "info", "x"], env=environment, stderr=subprocess.PIPE) as process:
            wait_for_question(daemon)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (130, b"")


def wait_for_question(daemon: ScriptedDaemon) -> None:
    """Return when the daemon has been asked."""
    end = time.monotonic() + 30
    while not daemon.record.stat().st_size:
        assert time.monotonic() < end
        time.sleep(0.01)


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
