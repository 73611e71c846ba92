"""Owns people, projects, membership and every kind of token: who may see and send what.

Knows nothing of HTTP headers, servers or log entries.
"""

import hmac
import re
import secrets
import sqlite3
from collections.abc import Sequence

import msgspec

from orionagent.console.secret import hash_token
from orionagent.console.store import Store
from orionagent.errors import BadRequest, Exists, NotFound, NotPermitted

SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
RESERVED_PROJECTS = ("new", "permissions", "settings", "validate-email")
PERMISSIONS = (
    "logs:write", "logs:read", "sources:read", "sources:manage", "members:read", "members:manage",
    "tokens:read", "tokens:manage", "settings:read", "settings:write", "performance:write", "heartbeat:write",
    "commands:read", "commands:write",
)  # fmt: skip
DEVICE_PERMISSIONS = ("logs:write", "heartbeat:write", "performance:write", "commands:write", "commands:read")
MEMBER_PERMISSIONS = tuple(name for name in PERMISSIONS if not name.endswith(":manage") and name != "settings:write")
DEFAULT_LEVELS = ("info", "warn", "error", "debug", "verbose", "trace", "fatal")
HOME_PROJECT = "local"
USER_TOKEN_AGE_S = 30 * 86400
CLI_LOGIN_AGE_S = 600


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person; `operator` is whoever holds the console's own token and sees every project."""

    id: int
    email: str
    pseudo: str
    first_name: str
    last_name: str
    operator: bool
    created_at: float
    updated_at: float


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project as one user sees it."""

    id: int
    name: str
    label: str
    role: str
    enabled_levels: tuple[str, ...]
    created_at: float


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever sends with an API token: its project, and its source when the token is bound to one."""

    project_id: int
    source_id: int | None
    permissions: tuple[str, ...]


class MadeToken(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh API token, the only time it is in clear."""

    id: int
    name: str
    token: str
    prefix: str
    created_at: float


class Accounts:
    """People, projects and tokens. Sole writer of users, members, projects and both token tables."""

    def __init__(self, store: Store, console_token: str) -> None:
        self._store = store
        self._console_hash = hash_token(console_token)
        self.operator, self.home_project_id = self._ensure_operator()

    def _ensure_operator(self) -> tuple[User, int]:
        store, now = self._store, self._store.now()
        with store.transaction():
            if store.one("SELECT 1 FROM users WHERE operator") is None:
                store.insert(
                    "INSERT INTO users (email, pseudo, first_name, last_name, operator, created_at,"
                    " updated_at) VALUES ('operator@localhost', 'operator', 'Console', 'Operator', 1, ?, ?)",
                    now,
                    now,
                )
            row = store.one("SELECT * FROM users WHERE operator")
            assert row is not None
            home = store.scalar("SELECT id FROM projects WHERE name = ?", HOME_PROJECT)
            if home is None:
                home = self._insert_project(HOME_PROJECT, "Local", row["id"])
        return _user(row), home

    # -- people ------------------------------------------------------------------------------------------

    def add_user(self, *, email: str, pseudo: str, first_name: str, last_name: str, password: str) -> User:
        """Add a person; `password` is already hashed.

        Raises:
            Exists: e-mail or pseudo is taken.
        """
        now = self._store.now()
        try:
            user_id = self._store.insert(
                "INSERT INTO users (email, pseudo, first_name, last_name, password, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(email, pseudo, first_name, last_name, password, now, now),
            )
        except sqlite3.IntegrityError as error:
            what = "e-mail address" if "email" in str(error) else "pseudo"
            raise Exists(f"cannot sign up: this {what} is taken; sign in or choose another") from error
        row = self._store.one("SELECT * FROM users WHERE id = ?", user_id)
        assert row is not None
        return _user(row)

    def find_by_email(self, email: str) -> tuple[User, str] | None:
        """Return the person and the password hash; None for an unknown address or one without password."""
        row = self._store.one("SELECT * FROM users WHERE email = ? AND password IS NOT NULL", email)
        return None if row is None else (_user(row), row["password"])

    def issue_user_token(self, user: User, kind: str) -> str:
        """Make a token that acts as `user` for 30 days; kind is "session" or "cli"."""
        token = "orion_user_" + secrets.token_urlsafe(32)
        now = self._store.now()
        self._store.run(
            "INSERT INTO user_tokens (hash, user_id, kind, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
            *(hash_token(token), user.id, kind, now, now + USER_TOKEN_AGE_S),
        )
        return token

    def user_of(self, token: str) -> User | None:
        """Return whom a user token, or the console's own token, stands for."""
        digest = hash_token(token)
        if hmac.compare_digest(digest, self._console_hash):
            return self.operator
        row = self._store.one(
            "SELECT users.* FROM user_tokens JOIN users ON users.id = user_id WHERE hash = ? AND expires_at > ?",
            *(digest, self._store.now()),
        )
        return None if row is None else _user(row)

    # -- projects ----------------------------------------------------------------------------------------

    def projects_of(self, user: User) -> list[Project]:
        """Return the projects this person sees; the operator sees all."""
        if user.operator:
            rows = self._store.all("SELECT *, 'owner' AS role FROM projects ORDER BY name")
        else:
            rows = self._store.all(
                "SELECT projects.*, role FROM members JOIN projects ON projects.id = project_id"
                " WHERE user_id = ? ORDER BY name",
                user.id,
            )
        return [_project(row) for row in rows]

    def project(self, user: User, name: str) -> Project:
        """Return one project.

        Raises:
            NotFound: there is none of this name, or this person does not see it.
        """
        for project in self.projects_of(user):
            if project.name == name:
                return project
        raise NotFound(f"cannot find project {name!r}: no such project, or you are not a member of it")

    def add_project(self, user: User, name: str, label: str) -> tuple[Project, str]:
        """Create a project owned by `user`; return it and its token (kept only as a hash).

        Raises:
            BadRequest: the name is no slug, or reserved.
            Exists: the name is taken.
        """
        if SLUG.fullmatch(name) is None or len(name) > 64:
            raise BadRequest(
                f"cannot create project {name!r}: not a valid name; use lowercase letters, digits and hyphens"
            )
        if name in RESERVED_PROJECTS:
            raise BadRequest(f"cannot create project {name!r}: this name is reserved; choose another")
        with self._store.transaction():
            try:
                project_id = self._insert_project(name, label, user.id)
            except sqlite3.IntegrityError as error:
                raise Exists(f"cannot create project {name!r}: this name is taken; choose another") from error
            token = self.add_api_token(project_id, "project", DEVICE_PERMISSIONS, None).token
        return self.project(user, name), token

    def _insert_project(self, name: str, label: str, owner_id: int) -> int:
        project_id = self._store.insert(
            "INSERT INTO projects (name, label, enabled_levels, created_at) VALUES (?, ?, ?, ?)",
            *(name, label or name, " ".join(DEFAULT_LEVELS), self._store.now()),
        )
        self._store.run("INSERT INTO members VALUES (?, ?, 'owner')", project_id, owner_id)
        return project_id

    def add_member(self, project_id: int, email: str) -> bool:
        """Make the person with this address a member; tell whether there is one."""
        user_id = self._store.scalar("SELECT id FROM users WHERE email = ?", email)
        if user_id is not None:
            self._store.run("INSERT OR IGNORE INTO members VALUES (?, ?, 'member')", project_id, user_id)
        return user_id is not None

    def members(self, project_id: int) -> list[sqlite3.Row]:
        """Return the people of a project with their roles, the owner first."""
        return self._store.all(
            "SELECT users.*, role FROM members JOIN users ON users.id = user_id WHERE project_id = ?"
            " ORDER BY role = 'owner' DESC, pseudo",
            project_id,
        )

    def change_project(self, project_id: int, label: str | None, levels: Sequence[str] | None) -> None:
        """Change what is given.

        Raises:
            BadRequest: a level that is empty or holds spaces.
        """
        if label is not None:
            self._store.run("UPDATE projects SET label = ? WHERE id = ?", label.strip(), project_id)
        if levels is not None:
            cleaned = [level.strip().lower() for level in levels]
            if any(not level or len(level.split()) != 1 for level in cleaned):
                raise BadRequest("cannot save the levels: a level is one word")
            self._store.run("UPDATE projects SET enabled_levels = ? WHERE id = ?", " ".join(cleaned), project_id)

    def project_name(self, project_id: int) -> str:
        """Return the slug of a project that exists."""
        return str(self._store.scalar("SELECT name FROM projects WHERE id = ?", project_id))

    def enabled_levels(self, project_id: int) -> frozenset[str]:
        """Return the levels this project keeps; entries of others are accepted and dropped."""
        return frozenset(self._store.scalar("SELECT enabled_levels FROM projects WHERE id = ?", project_id).split())

    # -- API tokens --------------------------------------------------------------------------------------

    def add_api_token(
        self, project_id: int, name: str, permissions: Sequence[str], source_id: int | None
    ) -> "MadeToken":
        """Make an API token; the answer's `token` is the only place where it is ever in clear.

        Raises:
            BadRequest: a permission that does not exist.
        """
        for permission in permissions:
            if permission not in PERMISSIONS:
                raise BadRequest(f"cannot create the token: {permission!r} is not a permission")
        token = "orion_sdk_" + secrets.token_urlsafe(32)
        prefix, now = token[:14], self._store.now()
        token_id = self._store.insert(
            "INSERT INTO api_tokens (project_id, source_id, name, prefix, hash, permissions, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(project_id, source_id, name, prefix, hash_token(token), " ".join(permissions), now),
        )
        return MadeToken(id=token_id, name=name, token=token, prefix=prefix, created_at=now)

    def api_tokens(self, project_id: int) -> list[sqlite3.Row]:
        """Return a project's tokens (their hashes are of no use to anybody), newest first."""
        return self._store.all(
            "SELECT api_tokens.*, sources.name AS source_name FROM api_tokens"
            " LEFT JOIN sources ON sources.id = source_id WHERE api_tokens.project_id = ?"
            " ORDER BY api_tokens.id DESC",
            project_id,
        )

    def revoke_api_token(self, project_id: int, token_id: int) -> None:
        """Delete a token; one that is gone is fine."""
        self._store.run("DELETE FROM api_tokens WHERE project_id = ? AND id = ?", project_id, token_id)

    def device_of(self, token: str) -> Device | None:
        """Return what an API token, or the console's own token, may send."""
        digest = hash_token(token)
        if hmac.compare_digest(digest, self._console_hash):
            return Device(project_id=self.home_project_id, source_id=None, permissions=DEVICE_PERMISSIONS)
        row = self._store.one("SELECT * FROM api_tokens WHERE hash = ?", digest)
        if row is None:
            return None
        now = self._store.now()
        if row["last_used_at"] is None or now - row["last_used_at"] > 60:
            self._store.run("UPDATE api_tokens SET last_used_at = ? WHERE id = ?", now, row["id"])
        return Device(
            project_id=row["project_id"],
            source_id=row["source_id"],
            permissions=tuple(row["permissions"].split()),
        )

    # -- browser login of the command line ----------------------------------------------------------------

    def begin_cli_login(self, state: str, callback_port: int) -> None:
        """Remember that a command line waits on `callback_port` for the confirmation of `state`."""
        self._store.run(
            "INSERT INTO cli_logins (state, callback_port, created_at) VALUES (?, ?, ?)",
            *(state, callback_port, self._store.now()),
        )

    def confirm_cli_login(self, user: User, state: str) -> tuple[int, str]:
        """Use up `state`; return the waiting port and a token that acts as `user`.

        Raises:
            NotFound: unknown state.
            NotPermitted: used already, or older than ten minutes.
        """
        with self._store.transaction():
            row = self._store.one("SELECT * FROM cli_logins WHERE state = ?", state)
            if row is None:
                raise NotFound("cannot confirm: this sign-in request is unknown; start it again")
            if row["confirmed_at"] is not None or self._store.now() - row["created_at"] > CLI_LOGIN_AGE_S:
                raise NotPermitted(
                    "cannot confirm: this sign-in request is used or expired; start it again", code="gone"
                )
            self._store.run("UPDATE cli_logins SET confirmed_at = ? WHERE state = ?", self._store.now(), state)
            return row["callback_port"], self.issue_user_token(user, "cli")


def _user(row: sqlite3.Row) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        pseudo=row["pseudo"],
        first_name=row["first_name"],
        last_name=row["last_name"],
        operator=bool(row["operator"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _project(row: sqlite3.Row) -> Project:
    return Project(
        id=row["id"],
        name=row["name"],
        label=row["label"],
        role=row["role"],
        enabled_levels=tuple(row["enabled_levels"].split()),
        created_at=row["created_at"],
    )
