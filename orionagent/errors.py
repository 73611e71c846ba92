"""Owns the error tree: every failure that a person or a program meets has a stable code.

Knows nothing of where errors arise or how they are shown.
"""


class OrionError(Exception):
    """A failure with a stable problem code and a sentence for people.

    The message says "cannot X: reason; do Y", names the thing, and never holds a token.
    """

    code = "failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"


class BadRequest(OrionError):
    """The caller's words are off: unknown command, missing, unknown or malformed field."""

    code = "bad-request"


class NotFound(OrionError):
    """The named thing does not exist."""

    code = "not-found"


class Exists(OrionError):
    """A thing of this name is already there."""

    code = "exists"


class NotPermitted(OrionError):
    """The caller's uid and groups do not reach that far."""

    code = "not-permitted"


class NotRunning(OrionError):
    """No daemon answers on the socket."""

    code = "not-running"


class AlreadyRunning(OrionError):
    """Another daemon holds this root."""

    code = "already-running"


class Busy(OrionError):
    """A limit is reached for now; the same call may go through later."""

    code = "busy"


class Timeout(OrionError):
    """The deadline passed before the outcome was known."""

    code = "timeout"


class ConfigError(OrionError):
    """A configuration file cannot be used: the message names file, place and remedy."""

    code = "config"


class SpawnError(OrionError):
    """A script's process could not be started: folder, program, user or resource."""

    code = "spawn"


class BufferUnusable(OrionError):
    """The buffer file cannot be used at all (not merely damaged)."""

    code = "buffer"


class BackendError(OrionError):
    """A call to the backend failed; the subclass says what to do about it."""

    code = "backend"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Retryable(BackendError):
    """Network failure, 408, 429 or 5xx: the same request may succeed later.

    `retry_after_s` is what the backend asked for, already bounded, else None.
    """

    code = "backend-retryable"

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class Refused(BackendError):
    """401, 403, a redirect or a certificate that is not trusted: nothing may be sent until a person acts."""

    code = "backend-refused"


class TooLarge(BackendError):
    """413: the same entries may pass in smaller requests."""

    code = "backend-too-large"


class Unsupported(BackendError):
    """404, 405 or 415: this backend does not know the route or its content type."""

    code = "backend-unsupported"


class Permanent(BackendError):
    """Any other refusal: repeating the identical request is pointless."""

    code = "backend-permanent"
