"""Owns what the set-up reads and writes in an application's folder: its files, .orion/config.json, .gitignore.

Must not know the backend, nor what a token is good for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orionagent import jsonfile
from orionagent.errors import ConfigError, NotPermitted
from orionagent.files import read_guarded, write_atomic
from orionagent.paths import project_config

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
            with self._as_owner():
                data = read_guarded(os.path.join(self.path, name))
        except ConfigError:
            return None
        return None if data is None else data.decode("utf-8", "replace")

    def require_writable(self, sudo: str) -> None:
        """Check that the token can be written, before anybody is asked anything; `sudo` is the line to type if not.

        Raises:
            NotPermitted: this user may not.
            ConfigError: nobody can (read-only disk).
        """
        folder = os.path.dirname(self.config_path)
        with self._as_owner():
            looked_at = folder if os.path.isdir(folder) else self.path
            writable = os.access(looked_at, os.W_OK | os.X_OK, effective_ids=True)
        if writable:
            return
        if os.statvfs(looked_at).f_flag & os.ST_RDONLY:
            raise ConfigError(f"cannot write {self.config_path}: it is on a read-only disk; remount it writable")
        raise NotPermitted(f"cannot write {self.config_path}: permission denied; run: {sudo}")

    def fields(self) -> dict[str, Any]:
        """Return what .orion/config.json holds, all keys of it. Raises ConfigError."""
        with self._as_owner():
            data = read_guarded(self.config_path)
        fields = {} if data is None else jsonfile.parse(data, self.config_path)
        if not isinstance(fields, dict):
            raise ConfigError(f"cannot use {self.config_path}: it is no JSON object; correct or remove it")
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
        try:
            with self._as_owner():
                os.makedirs(os.path.dirname(self.config_path), mode=0o755, exist_ok=True)
                if os.path.exists(self.config_path):
                    os.chmod(self.config_path, 0o600)  # before the token is in it: a written file keeps its mode
                write_atomic(self.config_path, jsonfile.dump(fields), 0o600)
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
        try:
            with self._as_owner():
                before = read_guarded(path) or b""
                between = b"" if not before or before.endswith(b"\n") else b"\n"
                write_atomic(path, before + between + IGNORED.encode() + b"\n", 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
