"""Owns how a person proves who they are to the set-up: a token that was given, typed, or fetched by browser.

Must not know what is set up, nor keep the token anywhere.
"""

import getpass
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from orionagent.backend import Backend
from orionagent.errors import Permanent, Refused, Retryable, Unsupported
from orionagent.wizard.account import Account, begin_login
from orionagent.wizard.login import (
    WAIT_S,
    CallbackListener,
    browser_command,
    forwarding_line,
    is_page,
    open_page,
    ssh_connection,
)
from orionagent.wizard.prompts import Choice, MissingAnswer, Prompts, Question, read_hidden

FLAG = "--token=<token> or ORION_TOKEN"
TRIES = 3


class Surroundings(NamedTuple):
    """What the set-up reads of its process: environment, user, and how long a browser may take."""

    environment: Mapping[str, str] = os.environ
    uid: int = -1
    login_wait_s: float = WAIT_S


class Person(NamedTuple):
    """Somebody who has signed in. `sees_projects` is false for a token that is only good for sending."""

    token: str
    account: Account
    sees_projects: bool


def find_token(given: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the token of `--token` ("-": the first line of standard input, hidden), else that of ORION_TOKEN.

    Raises:
        MissingAnswer: standard input holds none.
    """
    if given == "-":
        typed = read_hidden("API token: ") if sys.stdin.isatty() else sys.stdin.readline()
        if not typed.strip():
            raise MissingAnswer("cannot read the token: standard input is empty; put it there, or give ORION_TOKEN")
        return typed.strip()
    return given or environment.get("ORION_TOKEN") or None


def sign_in(
    backend: Backend, prompts: Prompts, token: str | None, *, use_browser: bool, around: Surroundings
) -> Person:
    """Return who is signed in, by the token or by asking. Blocks for as long as the person takes.

    Raises:
        Refused: the token is good for nothing here (asked for three times where it was typed).
        Retryable: the backend cannot be reached.
        Permanent: it answers nonsense.
        Timeout: nobody confirmed in the browser.
        MissingAnswer: no token, and nobody to ask.
    """
    if token is not None:
        return identify(backend, token)
    methods = [Choice("browser", "in a browser"), Choice("token", "with an API token")]
    question = Question(f"How do you want to sign in to {backend.base.removesuffix('/api/v1')}?", FLAG)
    if prompts.select(question, methods, None) == "browser":
        return by_browser(backend, prompts, use_browser=use_browser, around=around)
    for left in range(TRIES - 1, -1, -1):
        typed = prompts.secret(Question("API token:", FLAG))
        try:
            return identify(backend, typed)
        except Refused as error:
            if not left:
                raise
            prompts.say(f"  {error.message}")
    raise AssertionError


@contextmanager
def naming_what_to_check() -> Iterator[None]:
    """Add to what the backend did not answer what a person can look at.

    Raises:
        Retryable: it could not be reached.
        Unsupported: it knows nothing of agents.
    """
    try:
        yield
    except Retryable as error:
        remedy = "try again later" if error.status else "check network, proxy and apiUrl"
        raise Retryable(f"{error.message}; {remedy}", status=error.status) from error
    except Unsupported as error:
        raise Unsupported(f"{error.message}; is apiUrl that of an Orion backend?", status=error.status) from error


def identify(backend: Backend, token: str) -> Person:
    """Return whose token this is. Raises: as `sign_in`."""
    account = Account(backend, token)
    try:
        account.projects()
    except (Refused, Permanent) as error:
        # A project's own token sees no projects but may send; some backends have nothing for people at all.
        if error.status not in (401, 403, 404) or not can_send(backend, token):
            raise
        return Person(token, account, False)
    return Person(token, account, True)


def can_send(backend: Backend, token: str) -> bool:
    """Tell whether a device's route accepts this token. Raises Retryable."""
    status, _ = backend.ask("/v1/agent/commands?hostname=", token=token)
    return status not in (401, 403)


def by_browser(backend: Backend, prompts: Prompts, *, use_browser: bool, around: Surroundings) -> Person:
    """Have the person confirm in a browser. Raises: as `sign_in`."""
    with CallbackListener() as listener:
        login = begin_login(backend, listener.port)
        if not is_page(login.loginUrl):
            raise Permanent("cannot sign in by browser: the backend names no page for it; use --token")
        prompts.say(f"Open this page and confirm:\n\n  {login.loginUrl}\n")
        command = browser_command(around.environment, around.uid) if use_browser else None
        connection = ssh_connection(around.environment)
        if connection is not None or command is None:
            line = forwarding_line(connection, listener.port, _user_name(around), socket.gethostname())
            prompts.say(f"If your browser is on another computer, run this there first:\n\n  {line}\n")
            prompts.say("or give up here and use an API token: --token=- asks for it.")
        if command is not None:
            open_page(command, login.loginUrl)
        prompts.say("Waiting for the browser (Ctrl-C gives up) ...")
        callback = listener.wait(login.state, around.login_wait_s)
    person = identify(backend, callback.token)
    if not callback.vouched:
        # Any page could have sent the browser here with a token of its own: the person knows who they are.
        email = person.account.email() if person.sees_projects else "an unknown account"
        if not prompts.confirm(Question(f"Signed in as {email}. Is that you?", "--token"), True):
            raise Refused("cannot go on: the browser signed in as somebody else; run the set-up again")
    return person


def _user_name(around: Surroundings) -> str:
    named = around.environment.get("SUDO_USER") or around.environment.get("USER")
    return named or getpass.getuser()
