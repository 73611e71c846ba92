"""An application's set-up, scripted and at a terminal, against a real console and a real daemon."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pexpect
import pytest

from orionagent.config import ScriptConfig
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.wizard.registration import registering_words, sudo_line
from tests.console.process import ConsoleProcess

ORION = [sys.executable, "-I", "-S", str(Path(__file__).parents[2] / "bin" / "orion")]
PACKAGE = '{"scripts": {"start": "npm-thing", "serve": "x"}}'
IS_ROOT = os.geteuid() == 0


def environment(root: Path, **more: str) -> dict[str, str]:
    return {"ORION_ROOT": str(root), "PATH": os.environ["PATH"], "TERM": "xterm", **more}


def orion(root: Path, *arguments: str, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*ORION, *arguments], env=environment(root, **more), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False, cwd=cwd,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def user() -> list[str]:
    """Return the option that a folder of root's asks for."""
    return ["--user=root"] if IS_ROOT else []


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


@pytest.fixture
def server(root: Path, console: ConsoleProcess) -> Path:
    """Return a root whose server is set up for the project `shop`."""
    arguments = ["setup", "--server", "--api-url", console.url, "--project", "shop", "--yes"]
    assert orion(root, *arguments, ORION_TOKEN=console.token)[0] == 0
    return root


@pytest.fixture
def daemon(server: Path) -> Iterator[Path]:
    with open(server / "daemon.out", "wb") as output:
        process = subprocess.Popen(
            [*ORION, "daemon", "--foreground"], env=environment(server), stdout=output, stderr=output
        )
    deadline = time.monotonic() + 30
    while orion(server, "ping")[0] != 0:
        assert process.poll() is None, (server / "daemon.out").read_text(encoding="utf-8")
        assert time.monotonic() < deadline
    yield server
    process.terminate()
    process.wait(30)


@pytest.fixture
def app(root: Path) -> Path:
    folder = root / "My App"
    folder.mkdir()
    (folder / "package.json").write_text(PACKAGE, encoding="utf-8")
    (folder / ".git").mkdir()
    return folder


def config_of(app: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((app / ".orion" / "config.json").read_text(encoding="utf-8"))
    return found


def test_a_scripted_set_up_starts_the_application_and_its_lines_arrive_under_its_source(
    daemon: Path, app: Path, console: ConsoleProcess
) -> None:
    arguments = ["setup", "--source", "--name=api", "--command=echo it works; exec sleep 60", *user(), "--yes"]
    code, output, errors = orion(daemon, *arguments, cwd=app, ORION_TOKEN=console.token)
    assert (code, errors) == (0, "")
    assert "api: running, pid " in output
    assert "it works" in output
    config = config_of(app)
    assert config["apiUrl"] == f"{console.url}/api/v1"
    assert (app / ".orion" / "config.json").stat().st_mode & 0o777 == 0o600
    assert (app / ".gitignore").read_text(encoding="utf-8") == ".orion/\n"
    assert config["token"] not in output
    deadline = time.monotonic() + 30
    while "it works" not in str(console.get("/api/projects/shop/sources/api/logs")):
        assert time.monotonic() < deadline
        gevent.sleep(0.1)
    (before,) = client.call(f"{daemon}/run/orion/agent.sock", "script:list")["scripts"]
    assert orion(daemon, *arguments, cwd=app, ORION_TOKEN=console.token)[0] == 0
    (after,) = client.call(f"{daemon}/run/orion/agent.sock", "script:list")["scripts"]
    # A new token is no reason to restart what runs well.
    assert (after["name"], after["pid"]) == ("api", before["pid"])
    assert config_of(app)["token"] != config["token"]


def test_without_a_daemon_the_script_is_registered_in_the_file(
    server: Path, app: Path, console: ConsoleProcess
) -> None:
    arguments = ["setup", "--source", *user(), "--no-auto-restart", "--no-capture", "--yes"]
    code, output, _ = orion(server, *arguments, cwd=app, ORION_TOKEN=console.token)
    assert code == 0
    assert "my-app starts with the daemon" in output
    (script,) = json.loads((server / "etc" / "orion" / "scripts.json").read_text(encoding="utf-8"))
    assert (script["name"], script["command"], script["cwd"]) == ("my-app", "npm start", str(app))
    assert (script["autoRestart"], script["captureOutput"]) == (False, False)


def test_keys_of_the_sdk_and_a_kept_token_stay(server: Path, app: Path, console: ConsoleProcess) -> None:
    (app / ".orion").mkdir()
    kept = {"token": "kept", "apiUrl": "http://127.0.0.1:9/api/v1", "maxQueueSize": 5}
    (app / ".orion" / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    assert orion(server, "setup", "--source", *user(), "--yes", cwd=app)[0] == 0
    assert config_of(app) == kept
    assert orion(server, "setup", "--source", *user(), "--yes", cwd=app, ORION_TOKEN=console.token)[0] == 0
    renewed = config_of(app)
    assert renewed["token"] != "kept"
    assert renewed | {"token": "kept"} == kept


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--yes", "--name=Bad Name"], 1, "not a valid name"),
        (["--yes", "--user=no-such-user"], 1, "no user 'no-such-user'"),
        (["--user=root"], 2, "give --project=<name>, or --yes for 'shop'"),
        (["--yes", "--user=root", "--name=api", "--command= "], 1, "command"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    arguments: list[str], code: int, said: str, server: Path, app: Path, console: ConsoleProcess
) -> None:
    more = user() if not any(word.startswith("--user") for word in arguments) else []
    found, _, errors = orion(server, "setup", "--source", *arguments, *more, cwd=app, ORION_TOKEN=console.token)
    assert found == code, errors
    assert said in errors
    assert not (app / ".orion").exists()
    assert not (server / "etc" / "orion" / "scripts.json").exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root can be asked whether root is meant")
def test_root_is_never_chosen_unasked(server: Path, app: Path, console: ConsoleProcess) -> None:
    code, _, errors = orion(server, "setup", "--source", "--yes", cwd=app, ORION_TOKEN=console.token)
    assert code == 2
    assert "give --user=<user>" in errors
    server.chmod(0o755)
    os.chown(app, 65534, 65534)
    assert orion(server, "setup", "--source", "--yes", cwd=app, ORION_TOKEN=console.token)[0] == 0
    (script,) = json.loads((server / "etc" / "orion" / "scripts.json").read_text(encoding="utf-8"))
    assert script["user"] == "nobody"
    for path in (app / ".orion", app / ".orion" / "config.json", app / ".gitignore"):
        assert path.stat().st_uid == 65534


@pytest.mark.skipif(not IS_ROOT, reason="needs somebody whose links root might follow")
def test_root_is_not_led_elsewhere_by_the_folder_s_owner(server: Path, app: Path, console: ConsoleProcess) -> None:
    precious = server / "precious.json"
    precious.write_text('{"mine": true}', encoding="utf-8")
    precious.chmod(0o644)
    server.chmod(0o755)
    (app / ".orion").mkdir()
    (app / ".orion" / "config.json").symlink_to(precious)
    for path in (app, app / ".orion"):
        os.chown(path, 65534, 65534)
    code, _, errors = orion(server, "setup", "--source", "--yes", cwd=app, ORION_TOKEN=console.token)
    assert code == 1
    assert "cannot write" in errors
    assert precious.read_text(encoding="utf-8") == '{"mine": true}'


def test_a_person_chooses_edits_and_sees_the_first_output(daemon: Path, app: Path, console: ConsoleProcess) -> None:
    child = pexpect.spawn(
        ORION[0], [*ORION[1:], "setup", "--source"], cwd=str(app), env=environment(daemon, ORION_TOKEN=console.token),
        encoding="utf-8", timeout=60, dimensions=(40, 160),
    )  # fmt: skip
    try:
        child.expect("Which project")
        child.send("\r")
        child.expect("Name of the new source")
        child.send("\r")
        child.expect("Its environment")
        child.send("\r")
        child.expect("How is it started")
        child.send("\r")
        child.expect("Start command")
        child.send("\x15echo hello from the shop; exec sleep 60\r")
        child.expect("Start it again when it crashes")
        child.send("y")
        child.expect("Send what it prints")
        child.send("y")
        if IS_ROOT:
            child.expect("Which user")
            child.send("nobody-such\r")
            child.expect("there is no user .nobody-such.")
            child.send("\x15root\r")
        child.expect("Keep the token out of git")
        child.send("y")
        child.expect("my-app: running, pid ")
        child.expect("hello from the shop")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0


def test_without_the_rights_the_exact_line_is_named() -> None:
    script = ScriptConfig(
        name="api", command="node dist/index.js --x='1'", cwd="/srv/my app", user="ann", autoRestart=False, source="API"
    )
    assert sudo_line(registering_words(script, is_known=False), Paths("/")) == (
        "sudo orion script add api 'node dist/index.js --x='\"'\"'1'\"'\"'' '--cwd=/srv/my app' --user=ann"
        " --no-auto-restart --set=source=API"
    )
    assert sudo_line(registering_words(script, is_known=True), Paths("/my/root")) == (
        "sudo ORION_ROOT=/my/root orion script set api 'command=node dist/index.js --x='\"'\"'1'\"'\"''"
        " 'cwd=/srv/my app' autoRestart=false captureOutput=true user=ann source=API"
    )
