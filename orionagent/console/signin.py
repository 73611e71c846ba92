"""Owns the routes of signing up and in, and of the command line's sign-in through the browser.

Knows nothing of projects; passwords are hashed in the thread pool so that nobody else waits.
"""

import re
import uuid
from typing import Any

import gevent
import msgspec
from werkzeug.wrappers import Response

from orionagent.console.accounts import User
from orionagent.console.http import Call, Unauthorized, answer
from orionagent.console.news import Services
from orionagent.console.secret import check_password, hash_password
from orionagent.console.store import iso
from orionagent.errors import BadRequest

MIN_PASSWORD = 8
MAX_PASSWORD = 1024
EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class SignUp(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants an account."""

    firstName: str
    lastName: str
    pseudo: str
    email: str
    password: str


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """Who comes back."""

    email: str
    password: str


class CliInit(msgspec.Struct, frozen=True, kw_only=True):
    """Where the command line waits for its token."""

    callbackPort: int = 7777


class CliConfirm(msgspec.Struct, frozen=True, kw_only=True):
    """Which waiting command line is meant."""

    state: str


def user_shape(user: User) -> dict[str, Any]:
    """Return a person in the clients' shape; there is no mail here, so every address counts as verified."""
    return {
        "id": user.id,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "pseudo": user.pseudo,
        "name": f"{user.first_name} {user.last_name}".strip() or user.pseudo,
        "avatar_url": None,
        "theme": "system",
        "totp_enabled": False,
        "email_2fa_enabled": False,
        "notifications_email": False,
        "email_verified": True,
        "plan": "enterprise",
        "created_at": iso(user.created_at),
        "updated_at": iso(user.updated_at),
    }


def register(to: Services, call: Call) -> Response:
    """Make an account and sign it in."""
    form = call.json(SignUp)
    email, pseudo = form.email.strip(), form.pseudo.strip()
    if EMAIL.fullmatch(email) is None or len(email) > 254:
        raise BadRequest("cannot sign up: that is not an e-mail address")
    if not 1 <= len(pseudo) <= 64 or not form.firstName.strip() or not form.lastName.strip():
        raise BadRequest("cannot sign up: first name, last name and pseudo must not be empty")
    if not MIN_PASSWORD <= len(form.password) <= MAX_PASSWORD:
        raise BadRequest(f"cannot sign up: the password needs at least {MIN_PASSWORD} characters")
    password = gevent.get_hub().threadpool.apply(hash_password, (form.password,))
    user = to.accounts.add_user(
        email=email,
        pseudo=pseudo,
        first_name=form.firstName.strip(),
        last_name=form.lastName.strip(),
        password=password,
    )
    return answer({"accessToken": to.tokens.issue_user_token(user, "session"), "user": user_shape(user)}, 201)


def login(to: Services, call: Call) -> Response:
    """Sign in; takes as long for an unknown address as for a wrong password."""
    form = call.json(SignIn)
    email = form.email.strip().lower()
    to.attempts.check(email, to.store.now())
    found = to.accounts.find_by_email(email)
    kept = None if found is None else found[1]
    right = gevent.get_hub().threadpool.apply(check_password, (form.password[:MAX_PASSWORD], kept))
    if found is None or not right:
        to.attempts.note_failure(email, to.store.now())
        raise Unauthorized("cannot sign in: e-mail address or password is wrong")
    user, _ = found
    return answer({"accessToken": to.tokens.issue_user_token(user, "session"), "user": user_shape(user)})


def show_me(_to: Services, call: Call) -> Response:
    """Return the caller, at top level and under `user`: clients read both."""
    shape = user_shape(call.user)
    return answer({**shape, "user": shape})


def begin_cli_login(to: Services, call: Call) -> Response:
    """Give a waiting command line the address to open in a browser."""
    port = call.json(CliInit).callbackPort
    if not 0 < port < 65536:
        raise BadRequest(f"cannot begin: {port} is no port")
    state = str(uuid.uuid4())
    to.tokens.begin_cli_login(state, port)
    origin = to.dashboard or call.request.host_url.rstrip("/")
    return answer({"state": state, "loginUrl": f"{origin}/auth/cli?state={state}"})


def confirm_cli_login(to: Services, call: Call) -> Response:
    """Hand a signed-in person's token to the waiting command line; each state works once."""
    port, token = to.tokens.confirm_cli_login(call.user, call.json(CliConfirm).state)
    return answer({"callbackPort": port, "token": token})
