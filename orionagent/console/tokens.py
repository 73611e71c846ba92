"""Owns every kind of token: who a caller is, what a device may send, the command line's browser login.

Knows nothing of HTTP headers, servers or log entries.
"""

import hmac
import secrets
import sqlite3
from collections.abc import Sequence

import msgspec

from orionagent.console.accounts import PERMISSIONS, Accounts, User, to_user
from orionagent.console.secret import hash_token
from orionagent.console.store import Store
from orionagent.errors import BadRequest, NotFound, NotPermitted

DEVICE_PERMISSIONS = ("logs:write", "heartbeat:write", "performance:write", "commands:write", "commands:read")
USER_TOKEN_AGE_S = 30 * 86400
CLI_LOGIN_AGE_S = 600
USE_NOTED_EVERY_S = 60.0


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


class Tokens:
    """All tokens, kept as hashes. Sole writer of user_tokens, api_tokens and cli_logins."""

    def __init__(self, store: Store, accounts: Accounts, console_token: str) -> None:
        self._store = store
        self._accounts = accounts
        self._console_hash = hash_token(console_token)

    # -- people ------------------------------------------------------------------------------------------

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
            return self._accounts.operator
        row = self._store.one(
            "SELECT users.* FROM user_tokens JOIN users ON users.id = user_id WHERE hash = ? AND expires_at > ?",
            *(digest, self._store.now()),
        )
        return None if row is None else to_user(row)

    # -- devices -----------------------------------------------------------------------------------------

    def add_api_token(self, project_id: int, name: str, permissions: Sequence[str], source_id: int | None) -> MadeToken:
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
            return Device(project_id=self._accounts.home_project_id, source_id=None, permissions=DEVICE_PERMISSIONS)
        row = self._store.one("SELECT * FROM api_tokens WHERE hash = ?", digest)
        if row is None:
            return None
        now = self._store.now()
        if row["last_used_at"] is None or now - row["last_used_at"] > USE_NOTED_EVERY_S:
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
