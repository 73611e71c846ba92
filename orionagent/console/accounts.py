"""Owns people, projects and membership: who may see what.

Knows nothing of tokens, HTTP, servers or log entries.
"""

import re
import sqlite3
from collections.abc import Sequence

import msgspec

from orionagent.console.store import Store
from orionagent.errors import BadRequest, Exists, NotFound

SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
RESERVED_PROJECTS = ("new", "permissions", "settings", "validate-email")
PERMISSIONS = (
    "logs:write", "logs:read", "sources:read", "sources:manage", "members:read", "members:manage",
    "tokens:read", "tokens:manage", "settings:read", "settings:write", "performance:write", "heartbeat:write",
    "commands:read", "commands:write",
)  # fmt: skip
MEMBER_PERMISSIONS = tuple(name for name in PERMISSIONS if not name.endswith(":manage") and name != "settings:write")
DEFAULT_LEVELS = ("info", "warn", "error", "debug", "verbose", "trace", "fatal")
HOME_PROJECT = "local"


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


class Accounts:
    """People and projects. Sole writer of users, members and projects."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
        return to_user(row), home

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
        return to_user(row)

    def find_by_email(self, email: str) -> tuple[User, str] | None:
        """Return the person and the password hash; None for an unknown address or one without password."""
        row = self._store.one("SELECT * FROM users WHERE email = ? AND password IS NOT NULL", email)
        return None if row is None else (to_user(row), row["password"])

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

    def add_project(self, user: User, name: str, label: str) -> Project:
        """Create a project owned by `user`.

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
                self._insert_project(name, label, user.id)
            except sqlite3.IntegrityError as error:
                raise Exists(f"cannot create project {name!r}: this name is taken; choose another") from error
        return self.project(user, name)

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


def to_user(row: sqlite3.Row) -> User:
    """Return the person that a row of users is."""
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
