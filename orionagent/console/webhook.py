"""Owns telling the world outside of an alert: webhook calls, in the thread pool, never waited for.

Knows nothing of why an alert arose. There is no mail here: e-mail channels are kept and logged only.
"""

import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import gevent
import msgspec

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET that looks delivered."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def notify(channels: Sequence[Mapping[str, Any]], alert: Mapping[str, Any]) -> None:
    """Post the alert to every webhook among the channels; returns at once, failures are logged."""
    pool = gevent.get_hub().threadpool
    for channel in channels:
        if channel["type"] == "webhook":
            pool.spawn(_post, channel["target"], msgspec.json.encode({"type": "alert", "alert": alert}))
        else:
            log.warning("no mail from this console: the alert is not sent to an e-mail channel")


def _post(target: str, body: bytes) -> None:
    request = urllib.request.Request(  # noqa: S310 (the rule form admits http and https only)
        target, body, {"Content-Type": "application/json", "User-Agent": "orion-console"}, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as reply:
            reply.read(1024)
    except (OSError, ValueError) as error:
        log.warning("a webhook call failed: %s", error)
