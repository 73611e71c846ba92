"""Owns what the set-up reads and writes in an application's folder: its files, .orion/config.json, .gitignore.

Must not know the backend, nor what a token is good for.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        self._gitignore = os.path.join(path, ".gitignore")

    @property
    def owner_uid(self) -> int:
        """Return who owns the folder."""
        return os.stat(self.path).st_uid

    @contextmanager
    def _as_owner(self) -> Iterator[None]:
        """Act as the folder's owner where this is root: what root is led to by somebody's links is theirs.

        In a folder of root's own root stays root, and others may be able to write there: see `_follows`.
        """
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

    @property
    def _follows(self) -> bool:
        """Tell whether links may be followed: not where root stays root, which reaches what their maker does not."""
        return os.geteuid() != 0 or self.owner_uid != 0

    def _read(self, path: str) -> bytes | None:
        with self._as_owner():
            return read_guarded(path, follow=self._follows)

    def read(self, name: str) -> str | None:
        """Return the text of a file in the folder, or behind a link there; None when there is none to be read."""
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
            ConfigError: nobody can (read-only disk), or root would be led elsewhere by a link.
        """
        folder = os.path.dirname(self.config_path)
        if not self._follows:
            self._read(self.config_path)
            if self.wants_gitignore():
                self._read(self._gitignore)
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
        data = self._read(self.config_path)
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

        Only its owner can read the file: the owner of the application's folder, or without root's rights this user.
        In a folder of its own root follows no link.

        Raises:
            ConfigError: it cannot be written, or a link lies in its place; what was there is untouched.
        """
        fields = self.fields()
        fields["token"] = token
        if api_url is not None:
            fields.setdefault("apiUrl", api_url)
        try:
            with self._as_owner(), self._opened() as folder:
                path = os.path.join(folder, os.path.basename(self.config_path))
                self._make_private(path)
                write_atomic(path, jsonfile.dump(fields), 0o600, follow=self._follows)
        except OSError as error:
            raise ConfigError(f"cannot write {self.config_path}: {error.strerror}; nothing was changed") from error

    @contextmanager
    def _opened(self) -> Iterator[str]:
        """Make the token's folder; yield a path that leads to this one even if another is put in its place."""
        folder = os.path.dirname(self.config_path)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o755)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | self._no_link)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)

    def _make_private(self, path: str) -> None:
        """Close a file to others before the token is in it: a written file keeps its mode and its owner."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | self._no_link)
        except FileNotFoundError:
            return
        try:
            if not self._follows:
                owner = os.stat(self.path)
                os.fchown(fd, owner.st_uid, owner.st_gid)
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)

    @property
    def _no_link(self) -> int:
        return 0 if self._follows else os.O_NOFOLLOW

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
        path = self._gitignore
        try:
            before = self._read(path) or b""
            with self._as_owner():
                between = b"" if not before or before.endswith(b"\n") else b"\n"
                write_atomic(path, before + between + IGNORED.encode() + b"\n", 0o644, follow=self._follows)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
