"""Owns the routes that the clients know and this console answers only as far as keeps their pages alive.

Knows nothing beyond their shapes: no mail, no two-factor sign-in, no billing, no audit.
"""

from typing import Any

from werkzeug.wrappers import Response

from orionagent.console.http import Call, answer
from orionagent.console.news import Services
from orionagent.errors import OrionError

RETENTION_DAYS = 30


def refuse(_to: Services, call: Call, **_arguments: Any) -> Response:
    """Say that this console has no such thing."""
    raise OrionError(
        f"cannot do this here: {call.request.method} {call.request.path} is not part of the local console",
        code="not-implemented",
    )


def _empty(**body: Any) -> Any:
    def respond(_to: Services, _call: Call, **_arguments: Any) -> Response:
        return answer(body)

    return respond


no_preferences = _empty()
no_sessions = _empty(sessions=[])
no_connections = _empty(connections=[])
no_passkeys = _empty(passkeys=[])
no_pinned = _empty(pinned=[])
no_recent = _empty(recent=[])


def show_retention(to: Services, call: Call, project: str) -> Response:
    """Return that nothing is set per level (a JSON error would crash the clients' tab)."""
    to.accounts.project(call.user, project)
    return answer({"ok": True, "settings": [], "max_retention_days": RETENTION_DAYS, "plan": "free"})


def show_audit(to: Services, call: Call, project: str) -> Response:
    """Return an empty page: nothing is recorded."""
    to.accounts.project(call.user, project)
    return answer({"ok": True, "logs": [], "total": 0, "page": 1, "totalPages": 1})
