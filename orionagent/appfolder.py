"""Owns what the set-up reads and writes in an application's folder: its files, .orion/config.json, .gitignore.

Must not know the backend, nor what a token is good for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from orionagent.errors import ConfigError, NotPermitted
from orionagent.files import write_atomic
from orionagent.paths import project_config

LARGEST_BYTES = 1 << 20
IGNORED = ".orion/"


class AppFolder:
    """One application's folder, by its absolute path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.config_path = project_config(path)

    @property
    def owner_uid(self) -> int:
        """Return who owns the folder."""
        return os.stat(self.path).st_uid

    @contextmanager
    def _as_owner(self) -> Iterator[None]:
        """Act as the folder's owner where this is root: what root is led to by somebody's links is theirs."""
        owner = os.stat(self.path)
        if os.geteuid() != 0 or owner.st_uid == 0:
            yield
            return
        groups, gid = os.getgroups(), os.getegid()
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)

    def read(self, name: str) -> str | None:
        """Return the text of a file in the folder, None when there is none to be read."""
        try:
            with self._as_owner(), open(os.path.join(self.path, name), encoding="utf-8", errors="replace") as file:
                return file.read(LARGEST_BYTES)
        except OSError:
            return None

    def require_writable(self, sudo: str) -> None:
        """Check that the token can be written, before anybody is asked anything; `sudo` is the line to type if not.

        Raises:
            NotPermitted: this user may not.
        """
        folder = os.path.dirname(self.config_path)
        with self._as_owner():
            looked_at = folder if os.path.isdir(folder) else self.path
            writable = os.access(looked_at, os.W_OK | os.X_OK, effective_ids=True)
        if not writable:
            raise NotPermitted(f"cannot write {self.config_path}: permission denied; run: {sudo}")

    def fields(self) -> dict[str, Any]:
        """Return what .orion/config.json holds, all keys of it. Raises ConfigError."""
        try:
            with self._as_owner(), open(self.config_path, "rb") as file:
                fields = msgspec.json.decode(file.read(LARGEST_BYTES))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"cannot read {self.config_path}: {error.strerror}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {self.config_path}: {error}; correct or remove it") from error
        if not isinstance(fields, dict):
            raise ConfigError(f"cannot read {self.config_path}: it is no JSON object; correct or remove it")
        return fields

    def token(self) -> str | None:
        """Return the token that is there. Raises ConfigError."""
        token = self.fields().get("token")
        return token if isinstance(token, str) and token else None

    def write_token(self, token: str, api_url: str | None) -> None:
        """Write the token, keeping every other key; `api_url` ends in /api/v1 and is for SDKs.

        File and folder belong to the owner of the application's folder, who alone can read the file.

        Raises:
            ConfigError: it cannot be written; what was there is untouched.
        """
        fields = self.fields()
        fields["token"] = token
        if api_url is not None:
            fields.setdefault("apiUrl", api_url)
        data = msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"
        try:
            with self._as_owner():
                os.makedirs(os.path.dirname(self.config_path), mode=0o755, exist_ok=True)
                write_atomic(self.config_path, data, 0o600)
                os.chmod(self.config_path, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write {self.config_path}: {error.strerror}; nothing was changed") from error

    def wants_gitignore(self) -> bool:
        """Tell whether the folder is in a git working tree that does not ignore the token yet."""
        above = self.path
        while not os.path.exists(os.path.join(above, ".git")):
            above, below = os.path.dirname(above), above
            if above == below:
                return False
        lines = (self.read(".gitignore") or "").splitlines()
        return not {IGNORED, ".orion", "/.orion", "/.orion/", ".orion/config.json"} & {line.strip() for line in lines}

    def add_gitignore(self) -> None:
        """Append the token's folder to .gitignore. Raises ConfigError."""
        path = os.path.join(self.path, ".gitignore")
        before = self.read(".gitignore") or ""
        text = before + ("" if not before or before.endswith("\n") else "\n") + IGNORED + "\n"
        try:
            with self._as_owner():
                write_atomic(path, text.encode("utf-8", "surrogateescape"), 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
