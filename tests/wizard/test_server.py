"""The server's set-up, scripted and at a terminal, against a real console."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.console.process import ConsoleProcess
from tests.wizard.login_backend import TOKEN, LoginBackend

ORION = [sys.executable, "-I", "-S", str(Path(__file__).parents[2] / "bin" / "orion")]
DOWN = "\x1b[B"


def environment(root: Path, **more: str) -> dict[str, str]:
    return {"ORION_ROOT": str(root), "PATH": os.environ["PATH"], "TERM": "xterm", **more}


def setup(root: Path, *arguments: str, standard_input: str = "", **more: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*ORION, "setup", "--server", *arguments],
        env=environment(root, **more), input=standard_input, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def spawn(root: Path, *arguments: str, **more: str) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        ORION[0], [*ORION[1:], "setup", "--server", *arguments],
        env=environment(root, **more), encoding="utf-8", timeout=60, dimensions=(40, 160),
    )  # fmt: skip


def written(root: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((root / "etc" / "orion" / "config.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


def test_a_scripted_set_up_registers_the_server_and_writes_one_private_file(
    root: Path, console: ConsoleProcess
) -> None:
    arguments = ["--api-url", console.url, "--project", "shop", "--yes", "--token=-"]
    code, output, errors = setup(root, *arguments, standard_input=f"{console.token}\n")
    assert (code, errors) == (0, "")
    config = written(root)
    assert (config["apiUrl"], config["project"]) == (console.url, "shop")
    path = root / "etc" / "orion" / "config.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["config.json"]
    servers = console.get("/api/projects/shop/servers")["servers"]
    assert [server["hostname"] for server in servers] == [os.uname().nodename]
    assert config["token"] not in output
    assert console.token not in output


def test_a_second_scripted_set_up_keeps_everything(root: Path, console: ConsoleProcess) -> None:
    setup(root, "--api-url", console.url, "--project", "shop", "--yes", ORION_TOKEN=console.token)
    before = written(root)
    assert setup(root, "--yes")[:2] == (0, f"It reports to {console.url}, project shop.\nNothing changed.\n")
    assert written(root) == before
    assert setup(root, "--yes", ORION_TOKEN=console.token)[0] == 0
    renewed = written(root)
    assert renewed["project"] == "shop"
    assert renewed["token"] != before["token"]


def test_a_token_that_only_sends_is_used_as_it_is(root: Path, console: ConsoleProcess) -> None:
    console.post("/api/projects", {"name": "shop", "label": ""})
    wanted = {"name": "t", "permissions": ["logs:write", "heartbeat:write", "commands:read"]}
    made = console.post("/api/projects/shop/tokens", wanted)["token"]
    assert setup(root, "--api-url", console.url, "--yes", ORION_TOKEN=made)[0] == 0
    assert written(root)["token"] == made


@pytest.mark.parametrize(
    ("arguments", "token", "code", "said"),
    [
        (["--yes", "--project=shop"], "", 2, "give --token=<token> or ORION_TOKEN"),
        ([], "", 2, "there is no terminal; give --token=<token> or ORION_TOKEN"),
        (["--yes"], "console", 2, "give --project=<name>"),
        (["--yes", "--project=Bad_Name"], "console", 2, "lowercase letters, digits and hyphens"),
        (["--yes", "--project=settings"], "console", 2, "reserved"),
        (["--yes", "--project=shop"], "wrong-token", 1, "does not accept the token"),
        (
            ["--yes", "--project=shop", "--api-url=http://127.0.0.1:1"],
            "wrong-token",
            1,
            "Connection refused; check network, proxy and",
        ),
        (["--yes", "--api-url=http://no-such-host.invalid"], "wrong-token", 1, "in clear"),
        (["--yes", "--api-url=https://no-such-host.invalid"], "wrong-token", 1, "no-such-host.invalid"),
        (["--yes", "--api-url=CONSOLE/other/path"], "wrong-token", 1, "is apiUrl that of an Orion backend?"),
        (["--yes", "--api-url=nonsense"], "wrong-token", 1, "is no address"),
        (["--yes"], "two words", 1, "white space"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(
    arguments: list[str], token: str, code: int, said: str, root: Path, console: ConsoleProcess
) -> None:
    console.post("/api/projects", {"name": "second", "label": ""})
    token = console.token if token == "console" else token
    arguments = [word.replace("CONSOLE", console.url) for word in arguments]
    if not any(word.startswith("--api-url") for word in arguments):
        arguments = [*arguments, f"--api-url={console.url}"]
    found, output, errors = setup(root, *arguments, ORION_TOKEN=token)
    assert (found, output) == (code, "")
    assert said in errors
    assert not token or token not in errors
    assert not (root / "etc").exists()


def test_a_broken_config_is_never_overwritten(root: Path, console: ConsoleProcess) -> None:
    (root / "etc" / "orion").mkdir(parents=True)
    (root / "etc" / "orion" / "config.json").write_text('{"token": "t", ', encoding="utf-8")
    code, _, errors = setup(root, "--api-url", console.url, "--yes", "--project=shop", ORION_TOKEN=console.token)
    assert code == 1
    assert "not JSON" in errors
    assert (root / "etc" / "orion" / "config.json").read_text(encoding="utf-8") == '{"token": "t", '


@pytest.mark.parametrize("answers", ["", "\r", "\n"])
def test_a_token_from_standard_input_must_be_there(answers: str, root: Path) -> None:
    code, _, errors = setup(root, "--token=-", "--yes", standard_input=answers, ORION_TOKEN="another")
    assert code == 2
    assert "standard input is empty" in errors


def test_a_token_that_is_typed_for_standard_input_is_not_shown(root: Path, console: ConsoleProcess) -> None:
    child = spawn(root, "--api-url", console.url, "--project=shop", "--yes", "--token=-")
    try:
        child.expect("API token: ")
        child.send(f"{console.token}\r")
        child.expect("now reports to")
        assert console.token not in str(child.before)
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0


def test_a_set_up_whose_words_find_no_room_says_so_in_one_line(root: Path, console: ConsoleProcess) -> None:
    setup(root, "--api-url", console.url, "--project", "shop", "--yes", ORION_TOKEN=console.token)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*ORION, "setup", "--server", "--yes"], env=environment(root), stdin=subprocess.DEVNULL,
            stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"orion: cannot write the answer: No space left on device\n")


@pytest.mark.parametrize("option", ["--yes", ""])
def test_ctrl_d_at_a_hidden_question_is_the_other_way_to_walk_away(option: str, root: Path) -> None:
    # Without --yes the terminal that can do little asks by numbers: for the way to sign in, then for the token.
    arguments = ["--token=-", option] if option else []
    child = spawn(root, "--api-url", "http://127.0.0.1:1", "--project=shop", *arguments, TERM="dumb")
    try:
        if not option:
            child.expect("number")
            child.send("2\r")
        child.expect("API token: ")
        child.sendeof()
        child.expect(pexpect.EOF)
        said = str(child.before)
    finally:
        child.close(force=True)
    assert "Traceback" not in said
    assert child.exitstatus == 130


def test_others_can_read_neither_the_new_token_nor_the_old_file(root: Path, console: ConsoleProcess) -> None:
    (root / "etc" / "orion").mkdir(parents=True)
    path = root / "etc" / "orion" / "config.json"
    path.write_text("{}", encoding="utf-8")
    path.chmod(0o644)
    assert setup(root, "--api-url", console.url, "--project=shop", "--yes", ORION_TOKEN=console.token)[0] == 0
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("moves", "project", "is_renewed"), [("", "shop", False), (DOWN, "other", True), (DOWN * 2, "shop", True)]
)
def test_a_second_set_up_keeps_changes_the_project_or_renews_the_token(
    moves: str, project: str, is_renewed: bool, root: Path, console: ConsoleProcess
) -> None:
    console.post("/api/projects", {"name": "other", "label": ""})
    setup(root, "--api-url", console.url, "--project", "shop", "--yes", ORION_TOKEN=console.token)
    before = written(root)
    child = spawn(root)
    try:
        child.expect(f"It reports to {console.url}, project shop")
        child.expect("renew the token")
        child.send(f"{moves}\r")
        if is_renewed:
            child.expect("How do you want to sign in to http")
            child.send(f"{DOWN}\r")
            child.expect("API token:")
            child.send(f"{console.token}\r")
        if project == "other":
            child.expect("a new project")
            child.send("\x1b[A\r")
        child.expect("now reports to" if is_renewed else "Nothing changed")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert written(root)["project"] == project
    assert (written(root)["token"] != before["token"]) is is_renewed


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_person_types_a_token_and_makes_a_project(term: str, root: Path, console: ConsoleProcess) -> None:
    console.post("/api/projects", {"name": "old", "label": "Old"})
    child = spawn(root, "--api-url", console.url, TERM=term)
    arrows = term != "dumb"
    try:
        child.expect("How do you want to sign in")
        child.send(f"{DOWN}\r" if arrows else "2\r")
        child.expect("API token:")
        child.send("wrong-token\r")
        child.expect("does not accept the token")
        child.expect("API token:")
        child.send(f"{console.token}\r")
        child.expect("Which project")
        child.expect("a new project")
        child.send("\x1b[A\r" if arrows else "3\r")
        child.expect("Name of the new project")
        child.send("Bad Name\r")
        child.expect("lowercase letters, digits and hyphens only")
        child.send("\x15new-shop\r" if arrows else "new-shop\r")
        child.expect("Title of the project")
        child.send("\r")
        child.expect("now reports to")
        child.expect(pexpect.EOF)
        seen = child.before or ""
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert written(root)["project"] == "new-shop"
    assert console.token not in seen


def fake_browser(root: Path) -> str:
    """Return a browser that follows the login page to the callback at once."""
    program = root / "browser"
    follow = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{follow}" "$1"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_a_browser_login_leads_to_the_written_config(root: Path) -> None:
    with LoginBackend() as backend:
        child = spawn(root, "--api-url", backend.url, BROWSER=fake_browser(root))
        try:
            child.expect("How do you want to sign in")
            child.send("\r")
            child.expect("Open this page and confirm")
            child.expect("Which project")
            child.send("\r")
            child.expect("now reports to")
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
    assert child.exitstatus == 0
    assert written(root) == {"token": "agent-token", "apiUrl": backend.url, "project": "shop"}


def test_a_login_that_nothing_vouches_for_is_confirmed_by_its_person(root: Path) -> None:
    with LoginBackend("--without-state") as backend:
        child = spawn(root, "--api-url", backend.url, BROWSER=fake_browser(root))
        try:
            child.expect("How do you want to sign in")
            child.send("\r")
            child.expect("Signed in as ann@example.org. Is that you")
            child.send("n")
            child.expect("signed in as somebody else")
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
    assert child.exitstatus == 1
    assert not (root / "etc").exists()


def test_without_a_browser_the_page_is_only_printed_and_over_ssh_the_way_to_it(root: Path) -> None:
    with LoginBackend() as backend:
        remote = {"SSH_CONNECTION": "10.0.0.2 5000 203.0.113.9 22", "USER": "ann"}
        child = spawn(root, "--api-url", backend.url, "--no-browser", BROWSER=fake_browser(root), **remote)
        try:
            child.expect("How do you want to sign in")
            child.send("\r")
            child.expect(r"ssh -L (\d+):127.0.0.1:\1 ann@203.0.113.9")
            child.expect("or give up here and use an API token: --token=-")
            child.expect("Waiting for the browser")
            child.sendintr()
            child.expect(pexpect.EOF)
            assert TOKEN not in (child.before or "")
        finally:
            child.close(force=True)
    assert child.exitstatus == 130
    assert not (root / "etc").exists()
