"""Owns what a signed-in person can ask of the backend: projects, sources, tokens, and signing in itself.

Must not know prompts, files or the terminal. The routes are those of the setup command line's contract.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from orionagent.answers import one_line
from orionagent.backend import Backend
from orionagent.errors import BackendError, Permanent, Refused

ENVIRONMENTS = ("prod", "staging", "dev", "test")
# What an agent does with its token; see permission ids of the backend.
AGENT_PERMISSIONS = ("logs:write", "heartbeat:write", "performance:write", "commands:write", "commands:read")


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project that the person may see."""

    name: str
    label: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A source of a project."""

    name: str
    description: str = ""
    environment: str = ""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A browser login that has begun: where the person confirms it."""

    state: str
    loginUrl: str


class _Sources(msgspec.Struct, frozen=True, kw_only=True):
    sources: list[Source]


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    token: str


class _Person(msgspec.Struct, frozen=True, kw_only=True):
    email: str = ""


class _Me(msgspec.Struct, frozen=True, kw_only=True):
    user: _Person = _Person()


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    message: str = ""
    error: str = ""


class Account:
    """One person's view of the backend, by a user token. Every call blocks for at most the backend's timeout.

    Every call raises Refused (the token is not accepted), Permanent (the backend says no, in its words) or
    Retryable (it cannot be reached).
    """

    def __init__(self, backend: Backend, token: str) -> None:
        self._backend = backend
        self._token = token

    def email(self) -> str:
        """Return the person's e-mail address."""
        me: _Me = self._ask("/auth/me", _Me)
        return me.user.email

    def projects(self) -> list[Project]:
        """Return the person's projects."""
        found: list[Project] = self._ask("/projects", list[Project])
        return found

    def add_project(self, name: str, label: str) -> Project:
        """Create a project."""
        made: Project = self._ask("/projects", Project, {"name": name, "label": label})
        return made

    def sources(self, project: str) -> list[Source]:
        """Return a project's sources."""
        found: _Sources = self._ask(f"/projects/{quote(project, safe='')}/sources", _Sources)
        return found.sources

    def add_source(self, project: str, name: str, environment: str) -> None:
        """Create a source in a project."""
        fields = {"name": name, "environment": environment}
        self._ask(f"/projects/{quote(project, safe='')}/sources", Source, fields)

    def make_token(self, project: str, name: str, source: str | None = None) -> str:
        """Make a token with an agent's permissions, bound to a source where one is named; return it."""
        fields: dict[str, object] = {"name": name, "permissions": AGENT_PERMISSIONS}
        if source is not None:
            fields["source"] = source
        made: _Token = self._ask(f"/projects/{quote(project, safe='')}/tokens", _Token, fields)
        return made.token

    def _ask(self, path: str, shape: Any, fields: object = None) -> Any:
        return ask(self._backend, path, shape, fields, token=self._token)


def begin_login(backend: Backend, callback_port: int) -> Login:
    """Begin a browser login whose answer is awaited on a local port. Raises: as Account."""
    login: Login = ask(backend, "/auth/cli/init", Login, {"callbackPort": callback_port})
    return login


def ask(backend: Backend, path: str, shape: Any, fields: object = None, *, token: str | None = None) -> Any:
    """Call a route (GET, or POST where there are fields) and return its answer in its shape.

    Raises:
        Refused: 401 or 403.
        Permanent: any other refusal, or an answer that makes no sense.
        Retryable: the backend could not be reached.
    """
    status, body = backend.ask(path, fields, token=token)
    if 200 <= status < 300:
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.MsgspecError as error:
            raise Permanent(
                f"cannot read the answer to {path}: {error}; is {backend.base} an Orion backend?"
            ) from error
    raise refusal(status, said_by(body, token), path)


def refusal(status: int, said: str, path: str) -> BackendError:
    """Return the error that an HTTP status means, in the backend's own words where it has some."""
    if status == 401:
        return Refused(f"the backend does not accept the token: {said or status}", status=status)
    if status == 403:
        return Refused(f"the backend does not allow this: {said or status}", status=status)
    return Permanent(f"the backend refuses: {said or f'{path} answers {status}'}", status=status)


def said_by(body: bytes, token: str | None = None) -> str:
    """Return the sentence in an error body as it may be shown, empty when there is none."""
    try:
        failure = msgspec.json.decode(body, type=_Failure)
    except msgspec.MsgspecError:
        return ""
    return one_line(failure.message or failure.error, token)


def names(found: Sequence[Project] | Sequence[Source]) -> list[str]:
    """Return the names of projects or sources, in their order."""
    return [each.name for each in found]
