"""Owns the route table and the WSGI application over it: who may call what, and what answers.

Knows nothing of sockets or of what the handlers do.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from orionagent.console import alerting, dashboard, device, later, projects, signin, statistics
from orionagent.console.http import CORS, MAX_BODY_BYTES, Access, Call, answer, error_answer
from orionagent.console.news import Services
from orionagent.errors import OrionError

log = logging.getLogger(__name__)

STATIC = os.path.join(os.path.dirname(__file__), "static")
PAGES = {"/": "index.html", "/auth/cli": "auth.html", "/login": "auth.html", "/register": "auth.html"}
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page needs nothing from anywhere else, so a line of log that tries to be a script stays a line.
PAGE_HEADERS = (
    ("Content-Security-Policy", "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
)


class Route(NamedTuple):
    """One line of the table."""

    method: str
    path: str
    access: Access
    handler: Callable[..., Response]


P = "/api/projects/<project>"
PUBLIC, USER, DEVICE = Access.PUBLIC, Access.USER, Access.DEVICE


def show_health(to: Services, _call: Call) -> Response:
    """Say that the console answers and its database can be read."""
    to.store.scalar("SELECT 1")
    return answer({"ok": True})


ROUTES = (
    Route("GET", "/api/health", PUBLIC, show_health),
    # Devices
    Route("POST", "/api/v1/agent/heartbeat", DEVICE, device.take_heartbeat),
    Route("POST", "/api/v1/agent/log", DEVICE, device.take_entry),
    Route("POST", "/api/v1/agent/logs", DEVICE, device.take_entries),
    Route("POST", "/api/v1/agent/alert", DEVICE, device.take_alert),
    Route("GET", "/api/v1/agent/commands", DEVICE, device.list_commands),
    Route("POST", "/api/v1/agent/commands/<int:number>/ack", DEVICE, device.settle_command),
    Route("POST", "/api/logs/heartbeat", DEVICE, device.take_old_heartbeat),
    Route("GET", "/api/logs/commands", DEVICE, device.list_commands),
    Route("POST", "/api/logs/commands/<int:number>/ack", DEVICE, device.settle_command),
    Route("POST", "/api/logs/performance", DEVICE, device.take_performance),
    Route("POST", "/api/logs/emit", DEVICE, device.take_entry),
    # People
    Route("POST", "/api/auth/register", PUBLIC, signin.register),
    Route("POST", "/api/auth/login", PUBLIC, signin.login),
    Route("GET", "/api/auth/me", USER, signin.show_me),
    Route("POST", "/api/auth/cli/init", PUBLIC, signin.begin_cli_login),
    Route("POST", "/api/auth/cli/confirm", USER, signin.confirm_cli_login),
    # Projects
    Route("GET", "/api/projects", USER, projects.list_projects),
    Route("POST", "/api/projects", USER, projects.add_project),
    Route("GET", P, USER, projects.show_project),
    Route("GET", f"{P}/settings", USER, projects.show_settings),
    Route("GET", f"{P}/sources", USER, projects.list_sources),
    Route("POST", f"{P}/sources", USER, projects.add_source),
    Route("POST", f"{P}/tokens", USER, projects.add_token),
    Route("GET", "/api/projects/permissions", USER, projects.list_permissions),
    Route("POST", "/api/projects/validate-email", USER, projects.validate_email),
    Route("PATCH", f"{P}/settings", USER, projects.change_settings),
    Route("GET", f"{P}/settings/sources", USER, projects.list_settings_sources),
    Route("DELETE", f"{P}/sources/<int:number>", USER, projects.delete_source),
    Route("GET", f"{P}/tokens", USER, projects.list_tokens),
    Route("DELETE", f"{P}/tokens/<int:number>", USER, projects.revoke_token),
    Route("GET", f"{P}/members", USER, projects.list_members),
    # What the pages read
    Route("GET", f"{P}/sources/<source>/logs", USER, dashboard.recent_logs),
    Route("GET", f"{P}/sources/<source>/stats", USER, statistics.source_stats),
    Route("GET", f"{P}/servers", USER, dashboard.list_servers),
    Route("GET", f"{P}/servers/<hostname>", USER, dashboard.show_server),
    Route("GET", f"{P}/servers/<hostname>/samples", USER, dashboard.list_samples),
    Route("GET", f"{P}/servers/<hostname>/commands", USER, dashboard.list_commands),
    Route("POST", f"{P}/servers/<hostname>/commands", USER, dashboard.add_command),
    Route("GET", f"{P}/logs", USER, dashboard.search_logs),
    Route("GET", f"{P}/logs/export", USER, dashboard.export_logs),
    Route("GET", f"{P}/tags", USER, dashboard.list_tags),
    Route("GET", f"{P}/stats", USER, statistics.project_stats),
    Route("GET", f"{P}/heartbeats", USER, statistics.list_heartbeats),
    Route("POST", "/api/ws/create", USER, dashboard.create_ticket),
    # Alerts
    Route("GET", f"{P}/alerts", USER, alerting.list_alerts),
    Route("POST", f"{P}/alerts/<int:number>/silence", USER, alerting.silence_alert),
    Route("POST", f"{P}/alerts/<int:number>/resolve", USER, alerting.resolve_alert),
    Route("DELETE", f"{P}/alerts/<int:number>", USER, alerting.delete_alert),
    Route("GET", f"{P}/alerts/rules", USER, alerting.list_rules),
    Route("POST", f"{P}/alerts/rules", USER, alerting.add_rule),
    Route("PUT", f"{P}/alerts/rules/<int:number>", USER, alerting.change_rule),
    Route("DELETE", f"{P}/alerts/rules/<int:number>", USER, alerting.delete_rule),
    Route("POST", f"{P}/alerts/rules/<int:number>/test", USER, alerting.test_rule),
    # Known to the clients, not to this console
    Route("PATCH", "/api/auth/preferences", USER, later.no_preferences),
    Route("GET", "/api/auth/sessions", USER, later.no_sessions),
    Route("GET", "/api/auth/connections", USER, later.no_connections),
    Route("GET", "/api/auth/passkey", USER, later.no_passkeys),
    Route("GET", "/api/user/pinned", USER, later.no_pinned),
    Route("GET", "/api/user/recent", USER, later.no_recent),
    Route("GET", f"{P}/settings/retention", USER, later.show_retention),
    Route("GET", f"{P}/settings/audit", USER, later.show_audit),
    *(Route(method, path, USER, later.refuse) for method, path in (
        ("PATCH", "/api/auth/me"),
        ("POST", "/api/auth/me/avatar"),
        ("DELETE", "/api/auth/me/avatar"),
        ("POST", "/api/auth/change-password"),
        ("POST", "/api/auth/change-email"),
        ("POST", "/api/auth/resend-verification"),
        ("GET", "/api/auth/2fa/totp/setup"),
        ("POST", "/api/auth/2fa/totp/verify"),
        ("DELETE", "/api/auth/2fa/totp"),
        ("POST", "/api/auth/2fa/email"),
        ("DELETE", "/api/auth/2fa/email"),
        ("POST", "/api/auth/action-code/send"),
        ("POST", "/api/auth/action-token"),
        ("DELETE", "/api/auth/sessions"),
        ("DELETE", "/api/auth/sessions/<session>"),
        ("DELETE", "/api/auth/connections/<provider>"),
        ("GET", "/api/auth/passkey/register-options"),
        ("POST", "/api/auth/passkey/register"),
        ("PATCH", "/api/auth/passkey/<int:number>"),
        ("DELETE", "/api/auth/passkey/<int:number>"),
        ("GET", "/api/auth/passkey/action-options"),
        ("POST", "/api/auth/passkey/action"),
        ("GET", "/api/projects/settings/list"),
        ("PATCH", f"{P}/archive"),
        ("PATCH", f"{P}/restore"),
        ("DELETE", P),
        ("PATCH", f"{P}/settings/retention"),
        ("POST", f"{P}/tokens/<int:number>/rotate"),
        ("POST", f"{P}/members"),
        ("PATCH", f"{P}/members/<int:number>"),
        ("DELETE", f"{P}/members/<int:number>"),
        ("POST", f"{P}/members/transfer-ownership"),
        ("POST", "/api/user/pinned"),
        ("DELETE", "/api/user/pinned/<int:number>"),
        ("POST", "/api/user/recent"),
        ("GET", "/api/billing/subscription"),
        ("POST", "/api/billing/checkout"),
        ("POST", "/api/billing/portal"),
    )),
    *(Route(method, path, PUBLIC, later.refuse) for method, path in (
        ("GET", "/api/auth/verify-email/<token>"),
        ("POST", "/api/auth/2fa/verify"),
        ("POST", "/api/auth/passkey/login-options"),
        ("POST", "/api/auth/passkey/login"),
        ("GET", "/api/billing/plans"),
    )),
)  # fmt: skip


class BoundedRequest(Request):
    """A request whose body is refused when it is too large."""

    max_content_length = MAX_BODY_BYTES


class Console:
    """The WSGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._map = Map(
            [Rule(route.path, methods=[route.method], endpoint=route) for route in ROUTES],
            merge_slashes=False,
            redirect_defaults=False,
        )
        self._files = {f"/static/{name}": name for name in os.listdir(STATIC)} | PAGES

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = BoundedRequest(environ)
        try:
            response = self._answer(request)
        except Exception as error:
            if not isinstance(error, (OrionError, HTTPException, OverflowError)):
                log.exception("%s %s failed", request.method, request.path)
            response = error_answer(error)
        response.headers.extend(CORS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return answer(status=204)
        if request.path in self._files:
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(["GET", "HEAD"])
            return _file(self._files[request.path])
        if not request.path.startswith("/api/"):
            raise NotFound(f"there is nothing at {request.path}")
        route, arguments = self._map.bind_to_environ(request.environ).match()
        call = Call(request, self._services.tokens, route.access)
        response: Response = route.handler(self._services, call, **arguments)
        return response


def _file(name: str) -> Response:
    with open(os.path.join(STATIC, name), "rb") as file:
        response = Response(file.read(), mimetype=MEDIA_TYPES[os.path.splitext(name)[1]])
    response.headers.extend(PAGE_HEADERS)
    return response
