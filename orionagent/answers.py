"""Owns what an answer of the backend means: which failure a status is, how long to wait, whose clock is off.

Pure: knows nothing of how the answer came; the time is an argument.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from orionagent.errors import BackendError, Permanent, Refused, Retryable, TooLarge, Unsupported

RETRY_AFTER_LIMIT_S = 3600.0
EXCERPT_CHARACTERS = 160
STATED_IN = ("error", "message", "detail")
STATED_BYTES = 64 << 10

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa1-\ud7ff\ue000-\U0010ffff]+")
_BEARER = re.compile(r"(?i)bearer\s+\S+")


def failure(
    status: int, headers: Mapping[str, str], body: bytes, *, call: str, token: str, now_s: float
) -> BackendError | None:
    """Return what a status means for the caller, None for an acknowledgement (any 2xx, whatever its body).

    `call` begins the message, as in "cannot send logs to https://host/api/v1"; `now_s` is Unix time.
    A redirect is Refused, not Permanent: a captive portal must not make anybody set entries aside.
    """
    if 200 <= status < 300:
        return None
    said = f"{call}: answered {status}{excerpt(body, token)}"
    if 300 <= status < 400:
        return Refused(f"{said}, a redirect; set apiUrl to the backend's real address", status=status)
    if status in (401, 403):
        return Refused(f"{said}, the token is not accepted; run: sudo orion setup --server", status=status)
    if status == 407:
        return Refused(f"{said}, the proxy wants a password; put it into proxy", status=status)
    if status in (408, 429) or status >= 500 or status < 200:
        wait_s = retry_after_s(headers.get("Retry-After"), headers.get("Date"), now_s)
        return Retryable(said, status=status, retry_after_s=wait_s)
    if status == 413:
        return TooLarge(said, status=status)
    if status in (404, 405, 415):
        return Unsupported(said, status=status)
    return Permanent(said, status=status)


def retry_after_s(value: str | None, date: str | None, now_s: float) -> float | None:
    """Return the seconds that a Retry-After header asks for, within 0 to 3600; None when it makes no sense.

    A moment counts from the answer's own Date where there is one: the two clocks may differ.
    RFC 9110, 10.2.3.
    """
    if value is None:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        until_s = _unix_s(value)
        if until_s is None:
            return None
        sent_s = _unix_s(date)
        wait_s = until_s - (now_s if sent_s is None else sent_s)
    if math.isnan(wait_s):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_LIMIT_S)


def clock_skew_s(date: str | None, now_s: float) -> float | None:
    """Return the backend's clock minus ours, None without a usable Date header.

    The header has whole seconds, so the middle of its second is meant: the error is half a second and the
    way back.
    """
    sent_s = _unix_s(date)
    return None if sent_s is None else sent_s + 0.5 - now_s


def excerpt(body: bytes, token: str) -> str:
    """Return what an answer's body says, in brackets for a message: printable, one short line, without the token."""
    text = one_line(_stated(body) or body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"), token)
    return f" ({text})" if text else ""


def one_line(text: str, token: str | None) -> str:
    """Return the backend's words as they may be shown: printable, one short line, without the token."""
    if token:
        text = text.replace(token, "***")
    text = _UNPRINTABLE.sub(" ", _BEARER.sub("Bearer ***", text))
    return " ".join(text.split())[:EXCERPT_CHARACTERS]


def _stated(body: bytes) -> str | None:
    """Return the reason that a JSON answer gives in words, None where it is no such thing."""
    if not body.startswith(b"{") or len(body) > STATED_BYTES:
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    said = next((answer[key] for key in STATED_IN if answer.get(key)), None)
    if isinstance(said, dict):
        said = said.get("message")
    return said[: 4 * EXCERPT_CHARACTERS] if isinstance(said, str) else None


def _unix_s(date: str | None) -> float | None:
    if not date:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
