"""Owns how secrets are kept and tried: hashes of passwords and tokens, and how often one may guess.

Knows nothing of whose they are or where they are stored.
"""

import base64
import hashlib
import hmac
import os

from orionagent.errors import Busy

SCRYPT = {"n": 2**14, "r": 8, "p": 1}
ATTEMPTS, ATTEMPTS_WINDOW_S = 10, 60.0
MAX_ADDRESSES = 10_000


def hash_token(token: str) -> bytes:
    """Return what is kept of a token: its SHA-256 (tokens are random, so no salt is needed)."""
    return hashlib.sha256(token.encode()).digest()


def hash_password(password: str) -> str:
    """Return a salted scrypt hash as text. Blocks for about 50 ms: call it in the thread pool."""
    salt = os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, **SCRYPT)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def check_password(password: str, kept: str | None) -> bool:
    """Tell whether the password fits; takes as long for an unknown account. Blocks like `hash_password`."""
    salt, expected = b"-" * 16, b""
    if kept is not None:
        _, salt_text, digest_text = kept.split("$")
        salt, expected = base64.b64decode(salt_text), base64.b64decode(digest_text)
    return hmac.compare_digest(hashlib.scrypt(password.encode(), salt=salt, **SCRYPT), expected)


class Attempts:
    """Failed sign-ins per e-mail address within the last minute; bounded."""

    def __init__(self) -> None:
        self._failed: dict[str, list[float]] = {}

    def check(self, email: str, now: float) -> None:
        """Let the attempt pass.

        Raises:
            Busy: ten failed within a minute.
        """
        recent = [at for at in self._failed.pop(email, ()) if now - at < ATTEMPTS_WINDOW_S]
        if recent:
            self._failed[email] = recent
        if len(recent) >= ATTEMPTS:
            raise Busy("cannot sign in: too many attempts for this address; wait a minute")

    def note_failure(self, email: str, now: float) -> None:
        """Remember a failed attempt."""
        if len(self._failed) >= MAX_ADDRESSES:
            self._failed.clear()
        self._failed.setdefault(email, []).append(now)
