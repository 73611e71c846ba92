"""The set-up under faults: certificates, clocks, disks; a clear message each time, and no half-written file."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pexpect
import pytest

from orionagent.paths import Paths
from orionagent.wizard.login import USUAL_PORT
from tests.console.process import ConsoleProcess
from tests.end_to_end.daemon import Daemon
from tests.faults.certificates import Mode
from tests.faults.fixtures import FaultyBackend
from tests.wizard.login_backend import TOKEN as PERSON_S_TOKEN
from tests.wizard.login_backend import LoginBackend
from tests.wizard.test_server import DOWN, ORION, environment, fake_browser, setup, spawn, written

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
TOKEN = "token-of-the-test"
# The wizard with a shorter patience for the browser than a person has.
IMPATIENT = """
import os, sys
from orionagent.errors import OrionError
from orionagent.wizard.login import USUAL_PORT
from orionagent.paths import Paths
from orionagent.wizard.prompts import choose_prompts
from orionagent.request import report_error
from orionagent.wizard.signin import Surroundings
from orionagent.wizard.server import ServerWishes, set_up_server
around = Surroundings(uid=os.geteuid(), login_wait_s=0.3)
try:
    set_up_server(ServerWishes(api_url=sys.argv[1]), choose_prompts(unattended=False), Paths.from_environment(), around)
except OrionError as error:
    sys.exit(report_error(error, False))
"""
NOT_FOR_PEOPLE = ["/projects"]  # this backend takes what agents send, and nothing else


@pytest.mark.parametrize("mode", ["self-signed", "expired", "wrong-name"])
def test_a_certificate_that_is_not_trusted_ends_the_set_up(mode: Mode, root: Path) -> None:
    with closing(FaultyBackend(tls=mode)) as backend:
        code, output, errors = setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)
    assert (code, output) == (1, "")
    assert "certificate is not trusted" in errors
    assert TOKEN not in errors
    assert not (root / "etc").exists()


def test_an_authority_of_one_s_own_is_taken_from_the_environment(root: Path) -> None:
    with closing(FaultyBackend(tls="good")) as backend:
        backend.rule(missing_routes=NOT_FOR_PEOPLE)
        trusting = {"ORION_TOKEN": TOKEN, "REQUESTS_CA_BUNDLE": str(backend.ca_file)}
        code, _, errors = setup(root, "--api-url", backend.url, "--yes", **trusting)
    assert (code, errors) == (0, "")


def test_a_clock_that_is_off_is_said(root: Path) -> None:
    with closing(FaultyBackend()) as backend:
        backend.rule(clock_skew_s=7200, missing_routes=NOT_FOR_PEOPLE)
        code, output, _ = setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)
    assert code == 0
    assert "clock is 1h 59m behind" in output or "clock is 2h 0m behind" in output
    assert written(root)["token"] == TOKEN


def test_a_backend_that_refuses_the_first_heartbeat_leaves_nothing_behind(root: Path) -> None:
    with closing(FaultyBackend()) as backend:
        backend.rule(missing_routes=NOT_FOR_PEOPLE)
        backend.fail("status", status=503, path="/agent/heartbeat", times=0)
        code, output, errors = setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)
    assert (code, output) == (1, "")
    assert "503" in errors
    assert not (root / "etc").exists()


def mounted(root: Path, mount: str, *arguments: str, token: str) -> "subprocess.CompletedProcess[str]":
    """Run the set-up with something mounted at its etc, in a mount namespace of its own; then list what is there."""
    (root / "etc" / "orion").mkdir(parents=True)
    program = f'{mount} && {{ "$@"; code=$?; ls -A "{root}/etc/orion" >&2; exit $code; }}'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", program, "sh", *ORION, "setup", "--server", *arguments, "--yes"],
        env=environment(root, ORION_TOKEN=token), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@needs_root
def test_a_read_only_etc_is_said_before_anything_is_asked(root: Path) -> None:
    mount = f'mount -t tmpfs -o ro tmpfs "{root}/etc/orion"'
    done = mounted(root, mount, "--api-url", "http://127.0.0.1:1", token=TOKEN)
    assert done.returncode == 1
    assert "read-only disk" in done.stderr
    assert "config.json\n" not in done.stderr.split("\n", 1)[1]


@needs_root
def test_a_full_disk_leaves_no_half_written_file(root: Path) -> None:
    full = f'mount -t tmpfs -o size=4k tmpfs "{root}/etc/orion" && head -c 4096 /dev/zero > "{root}/etc/orion/ballast"'
    with ConsoleProcess(root / "console") as console:
        done = mounted(root, full, "--api-url", console.url, "--project=shop", token=console.token)
    assert done.returncode == 1
    assert "No space left on device; nothing was changed" in done.stderr
    assert done.stderr.splitlines()[-1] == "ballast"


def test_a_config_without_a_token_keeps_its_other_keys(root: Path) -> None:
    (root / "etc" / "orion").mkdir(parents=True)
    path = root / "etc" / "orion" / "config.json"
    path.write_text(json.dumps({"hostname": "web9", "heartbeatInterval": 5000}), encoding="utf-8")
    with closing(FaultyBackend()) as backend:
        backend.rule(missing_routes=NOT_FOR_PEOPLE)
        assert setup(root, "--api-url", backend.url, "--yes", ORION_TOKEN=TOKEN)[0] == 0
    assert {"hostname": "web9", "heartbeatInterval": 5000, "token": TOKEN}.items() <= dict(written(root)).items()


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


def test_a_login_that_nobody_confirms_ends_with_what_to_do(root: Path) -> None:
    with LoginBackend() as backend:
        child = pexpect.spawn(
            sys.executable, ["-I", "-c", IMPATIENT, backend.url], env=environment(root), encoding="utf-8", timeout=60
        )
        try:
            child.expect("How do you want to sign in")
            child.send("\r")
            child.expect("nobody confirmed in the browser within .* run the set-up again, or use --token")
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
    assert child.exitstatus == 1
    assert not (root / "etc").exists()


def test_a_login_works_while_another_program_has_the_usual_port(root: Path) -> None:
    with LoginBackend() as backend, ExitStack() as stack:
        # Where it is taken already, somebody else is that other program.
        with suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", USUAL_PORT)))
        child = spawn(root, "--api-url", backend.url, BROWSER=fake_browser(root))
        try:
            child.expect("How do you want to sign in")
            child.send("\r")
            child.expect("Which project")
            child.send("\r")
            child.expect("now reports to")
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
    assert child.exitstatus == 0


STEPS = [
    ("How do you want to sign in", f"{DOWN}\r"),
    ("API token:", "TOKEN\r"),
    ("a new project", "\x1b[A\r"),
    ("Name of the new project", "shop\r"),
    ("Title of the project", ""),
]


@pytest.mark.parametrize("asked", range(1, len(STEPS) + 1))
def test_a_set_up_that_is_interrupted_at_any_question_writes_nothing_and_says_so(
    asked: int, root: Path, console: ConsoleProcess
) -> None:
    child = spawn(root, "--api-url", console.url)
    try:
        for number, (question, answer) in enumerate(STEPS[:asked], 1):
            child.expect(question)
            if number < asked:
                child.send(answer.replace("TOKEN", console.token))
        child.sendintr()
        child.expect("Given up: nothing was written")
        child.expect(pexpect.EOF)
        assert console.token not in str(child.before)
    finally:
        child.close(force=True)
    assert child.exitstatus == 130
    assert not (root / "etc").exists()
    assert [project["name"] for project in console.get("/api/projects")] == ["local"]


def command_lines() -> str:
    """Return how every process of this machine was called, as anybody can see it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return "\n".join(found)


def test_tokens_show_up_in_no_process_list_output_log_or_other_file(root: Path) -> None:
    secrets = [PERSON_S_TOKEN, "agent-token"]
    with LoginBackend() as backend:
        child = spawn(root, "--api-url", backend.url, BROWSER=fake_browser(root))
        seen = []
        try:
            child.expect("How do you want to sign in")
            child.send("\r")
            for question, answer in (("Which project", "\r"), ("now reports to", ""), (pexpect.EOF, "")):
                child.expect(question)
                seen += [str(child.before), command_lines()]
                child.send(answer)
        finally:
            child.close(force=True)
        assert child.exitstatus == 0
        agent = Daemon(Paths(str(root)))
        try:
            agent.start()
            seen += [command_lines(), agent.cli("status", "--json").stdout, agent.cli("doctor", "--json").stdout]
        finally:
            agent.close()
    for secret in secrets:
        assert not any(secret in text for text in seen)
        holders = [path.name for path in root.rglob("*") if path.is_file() and secret in path.read_text("utf-8")]
        assert holders == (["config.json"] if secret == "agent-token" else [])
