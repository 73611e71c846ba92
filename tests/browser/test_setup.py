"""The set-up's browser login, driven in a real browser against the local console."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pexpect
import pytest

from orionagent.wizard.login import USUAL_PORT
from tests.browser.chromium import Page
from tests.console.process import ConsoleProcess
from tests.wizard.test_login import browse, status_line
from tests.wizard.test_server import spawn

pytestmark = pytest.mark.browser

PERSON = {
    "firstName": "Ann",
    "lastName": "Example",
    "pseudo": "ann",
    "email": "ann@example.org",
    "password": "long-enough",
}


@pytest.fixture
def console(root: Path) -> Iterator[ConsoleProcess]:
    with ConsoleProcess(root / "console") as found:
        yield found


@pytest.fixture
def page() -> Iterator[Page]:
    with Page() as found:
        yield found


@pytest.fixture
def wizard(root: Path, console: ConsoleProcess) -> Iterator["pexpect.spawn[str]"]:
    """Yield a set-up that waits for the browser."""
    child = spawn(root, "--api-url", console.url, "--no-browser")
    child.expect("How do you want to sign in")
    child.send("\r")
    yield child
    child.close(force=True)


def login_page(wizard: "pexpect.spawn[str]") -> str:
    """Return the address that the set-up prints."""
    wizard.expect(r"(http://\S+/auth/cli\?state=\S+)")
    assert isinstance(wizard.match, re.Match)
    address = str(wizard.match[1])
    wizard.expect("Waiting for the browser")
    return address


def sign_up(page: Page, address: str) -> None:
    """Make an account on the login page and stay at its confirmation."""
    page.open(address)
    page.wait_for_text("Make an account")
    page.evaluate("[...document.querySelectorAll('a')].find(a => a.textContent === 'Make an account').click()")
    for name, value in PERSON.items():
        page.type(f"input[name={name}]", value)
    page.click("form button")
    page.wait_for_text("ann@example.org")


def test_a_newcomer_signs_up_confirms_and_the_server_is_set_up(
    root: Path, console: ConsoleProcess, page: Page, wizard: "pexpect.spawn[str]"
) -> None:
    sign_up(page, login_page(wizard))
    page.click("#confirm")
    page.wait_for_text("You are signed in. Go back to your terminal.")
    assert "token" not in str(page.evaluate("location.href"))
    wizard.expect("a new project")
    wizard.send("\r")
    wizard.expect("Name of the new project")
    wizard.send("shop\r")
    wizard.expect("Title of the project")
    wizard.send("\r")
    wizard.expect("now reports to")
    wizard.expect(pexpect.EOF)
    wizard.close()
    assert wizard.exitstatus == 0
    config = json.loads((root / "etc" / "orion" / "config.json").read_text(encoding="utf-8"))
    assert (config["project"], config["apiUrl"]) == ("shop", console.url)


def test_a_login_confirmed_after_the_wizard_was_interrupted_changes_nothing(
    root: Path, page: Page, wizard: "pexpect.spawn[str]"
) -> None:
    address = login_page(wizard)
    wizard.sendintr()
    wizard.expect(pexpect.EOF)
    sign_up(page, address)
    page.click("#confirm")
    page.wait_until("location.protocol === 'chrome-error:' || document.title !== 'Confirm sign-in · Orion'")
    assert not (root / "etc").exists()


def test_a_callback_of_another_login_is_refused_and_the_right_one_still_works(
    console: ConsoleProcess, page: Page, wizard: "pexpect.spawn[str]"
) -> None:
    address = login_page(wizard)
    begun = console.post("/api/auth/cli/init", {"callbackPort": 7777})
    other = console.post("/api/auth/cli/confirm", {"state": begun["state"]})
    state = parse_qs(urlsplit(address).query)["state"][0]
    port = console.post("/api/auth/cli/confirm", {"state": state})["callbackPort"]
    wrong = urlencode({"token": other["token"], "state": begun["state"]})
    assert status_line(browse(port, f"/callback?{wrong}")) == b"HTTP/1.1 400 Bad Request"
    replayed = console.call("POST", "/api/auth/cli/confirm", {"state": state})
    assert replayed.status_code in (404, 410)
    right = urlencode({"token": console.token, "state": state})
    assert status_line(browse(port, f"/callback?{right}")) == b"HTTP/1.1 200 OK"
    wizard.expect("Which project")
    with pytest.raises(ConnectionRefusedError):
        browse(port, f"/callback?{right}")


def test_the_browser_comes_back_while_another_program_has_the_usual_port(
    root: Path, console: ConsoleProcess, page: Page
) -> None:
    with ExitStack() as stack:
        # Where it is taken already, somebody else is that other program.
        with suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", USUAL_PORT)))
        child = spawn(root, "--api-url", console.url, "--no-browser")
        stack.callback(child.close, force=True)
        child.expect("How do you want to sign in")
        child.send("\r")
        sign_up(page, login_page(child))
        page.click("#confirm")
        page.wait_for_text("You are signed in. Go back to your terminal.")
        child.expect("a new project")
