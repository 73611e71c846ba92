"""An application's set-up by somebody without rights, interrupted, or done once more: nothing is lost or taken."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.console.process import ConsoleProcess
from tests.wizard.test_source import ORION, app, config_of, console, daemon, environment, orion, server, user

__all__ = ["app", "console", "daemon", "server"]  # fixtures

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = 65534
# Becomes nobody once everything is imported: the interpreter itself may lie where only root can read.
AS_NOBODY = f"""
import encodings.idna, encodings.utf_8_sig, getpass, json, os, shlex, sys
import gevent
from orionagent import cli
from orionagent.wizard import appfolder, proposals, server, source
gevent.get_hub()
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(cli.main(sys.argv[1:]))
"""


def orion_as_nobody(root: Path, *arguments: str, cwd: Path, **more: str) -> tuple[int, str, str]:
    root.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-I", "-c", AS_NOBODY, *arguments], env=environment(root, **more), cwd=cwd,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@needs_root
def test_without_the_rights_the_token_is_written_and_the_line_to_type_works(
    daemon: Path, app: Path, console: ConsoleProcess
) -> None:
    os.chown(app, NOBODY, NOBODY)
    arguments = ["setup", "--source", "--name=api", "--command=echo it's up; exec sleep 60", "--yes"]
    code, output, errors = orion_as_nobody(daemon, *arguments, cwd=app, ORION_TOKEN=console.token)
    assert code == 4, errors
    said, _, line = errors.rstrip("\n").partition("\n")
    assert said == "orion: cannot register api: permission denied; run:"
    assert config_of(app)["apiUrl"] == f"{console.url}/api/v1"
    assert console.token not in output + errors
    # What is to be typed, by somebody who has the rights already.
    typed = line.strip().replace(f"sudo ORION_ROOT={daemon} orion ", '"$@" ')
    done = subprocess.run(
        ["sh", "-c", typed, "sh", *ORION], env=environment(daemon), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), typed
    (script,) = json.loads((daemon / "etc" / "orion" / "scripts.json").read_text(encoding="utf-8"))
    assert (script["user"], script["cwd"], script["command"]) == ("nobody", str(app), "echo it's up; exec sleep 60")
    code, _, errors = orion_as_nobody(daemon, *arguments, "--no-capture", cwd=app)
    assert code == 4, errors
    assert "orion script set api " in errors


@needs_root
def test_whoever_may_not_know_the_backend_is_not_sent_to_another_one(
    server: Path, app: Path, console: ConsoleProcess
) -> None:
    os.chown(app, NOBODY, NOBODY)
    code, _, errors = orion_as_nobody(
        server, "setup", "--source", "--name=api", "--yes", cwd=app, ORION_TOKEN=console.token
    )
    assert code == 4
    assert "cannot tell which backend this server reports to" in errors
    assert errors.rstrip().endswith(f"run: sudo ORION_ROOT={server} orion setup --source --name=api --token=-")
    assert not (app / ".orion").exists()


@needs_root
def test_whoever_may_not_write_the_configuration_is_told_the_line_to_type(root: Path, console: ConsoleProcess) -> None:
    (root / "etc" / "orion").mkdir(parents=True)
    arguments = ["setup", "--server", f"--api-url={console.url}", "--project=shop", "--yes"]
    code, _, errors = orion_as_nobody(root, *arguments, cwd=Path("/"), ORION_TOKEN=console.token)
    assert code == 4
    line = f"sudo ORION_ROOT={root} orion setup --server --api-url={console.url} --project=shop --token=-"
    assert errors.rstrip().endswith(f"permission denied; run: {line}")


def test_a_set_up_that_is_run_again_starts_from_what_is_registered(
    server: Path, app: Path, console: ConsoleProcess
) -> None:
    registry = server / "etc" / "orion" / "scripts.json"
    before: list[dict[str, Any]] = [
        {"name": "db", "command": "sleep 1"},
        {"name": "api", "command": "run it", "cwd": str(app), "autoRestart": False, "env": {"A": "b"}},
        {"name": "last", "command": "sleep 2"},
    ]
    registry.write_text(json.dumps(before), encoding="utf-8")
    code, _, errors = orion(server, "setup", "--source", *user(), "--yes", cwd=app, ORION_TOKEN=console.token)
    assert (code, errors) == (0, "")
    after = json.loads(registry.read_text(encoding="utf-8"))
    assert [script["name"] for script in after] == ["db", "api", "last"]
    assert before[1].items() <= after[1].items()


@pytest.mark.parametrize("asked", ["Which project", "Name of the new source", "How is it started", "Start command"])
def test_an_interrupted_set_up_leaves_no_file_and_no_token_behind(
    asked: str, server: Path, app: Path, console: ConsoleProcess
) -> None:
    tokens = console.get("/api/projects/shop/tokens")
    child = pexpect.spawn(
        ORION[0], [*ORION[1:], "setup", "--source"], cwd=str(app), env=environment(server, ORION_TOKEN=console.token),
        encoding="utf-8", timeout=60, dimensions=(40, 160),
    )  # fmt: skip
    try:
        for question in ("Which project", "Name of the new source", "Its environment", "How is it started", asked):
            child.expect(question)
            if question == asked:
                break
            child.send("\r")
        child.sendintr()
        child.expect("Given up: nothing was written")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 130
    assert not (app / ".orion").exists()
    assert not (server / "etc" / "orion" / "scripts.json").exists()
    assert console.get("/api/projects/shop/tokens") == tokens


@needs_root
@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("-o size=4k tmpfs APP && mkdir APP/.orion && head -c 4096 /dev/zero > APP/.orion/ballast", "No space left"),
        ("-o ro tmpfs APP", "it is on a read-only disk; remount it writable"),
    ],
)
def test_a_folder_whose_disk_takes_nothing_is_said_and_nothing_is_registered(
    mount: str, said: str, server: Path, app: Path, console: ConsoleProcess
) -> None:
    folder = app.rename(server / "app")
    program = f'cd / && mount -t tmpfs {mount} && cd APP && {{ "$@"; code=$?; ls -A .orion >&2; exit $code; }}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", program.replace("APP", str(folder)), "sh", *ORION, "setup", "--source",
         "--command=true", "--name=api", *user(), "--yes"],
        env=environment(server, ORION_TOKEN=console.token), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert said.replace("APP", str(folder)) in done.stderr
    assert "config.json" not in done.stderr.splitlines()
    assert not (server / "etc" / "orion" / "scripts.json").exists()


@needs_root
def test_the_folder_s_owner_is_proposed_and_another_user_may_be_named(
    server: Path, app: Path, console: ConsoleProcess
) -> None:
    server.chmod(0o755)
    os.chown(app, NOBODY, NOBODY)
    child = pexpect.spawn(
        ORION[0], [*ORION[1:], "setup", "--source", "--name=api", "--command=true", "--no-capture"],
        cwd=str(app), env=environment(server, ORION_TOKEN=console.token), encoding="utf-8", timeout=60,
    )  # fmt: skip
    try:
        for question, answer in (
            ("Which project", "\r"),
            ("Its environment", "\r"),
            ("Start it again", "y"),
            ("Which user does it run as.*nobody", "\x15daemon\r"),
            ("Keep the token out of git", "n"),
        ):
            child.expect(question)
            child.send(answer)
        child.expect("api starts with the daemon, which is not running; start it with: ")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    (script,) = json.loads((server / "etc" / "orion" / "scripts.json").read_text(encoding="utf-8"))
    assert script["user"] == "daemon"
    assert not (app / ".gitignore").exists()
