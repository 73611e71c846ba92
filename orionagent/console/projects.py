"""Owns the routes that set things up: projects, their settings, sources, API tokens.

Knows nothing of what devices then send there.
"""

import msgspec
from werkzeug.wrappers import Response

from orionagent.console.accounts import MEMBER_PERMISSIONS, PERMISSIONS, Project
from orionagent.console.http import Call, answer
from orionagent.console.news import Services
from orionagent.console.store import iso
from orionagent.console.tokens import DEVICE_PERMISSIONS
from orionagent.errors import BadRequest, NotFound, NotPermitted


class NewProject(msgspec.Struct, frozen=True, kw_only=True):
    """A project to create."""

    name: str
    label: str = ""
    memberEmails: list[str] = []


class NewSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source to create."""

    name: str
    environment: str
    description: str | None = None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """An API token to make; bound to a source when it names one."""

    name: str
    permissions: list[str]
    source: str | None = None


def effective_permissions(project: Project) -> tuple[str, ...]:
    """Return what this person may do in this project."""
    return PERMISSIONS if project.role == "owner" else MEMBER_PERMISSIONS


def require(project: Project, permission: str) -> None:
    """Stop a person who may not do this.

    Raises:
        NotPermitted: the role lacks the permission.
    """
    if permission not in effective_permissions(project):
        raise NotPermitted(f"cannot do this in project {project.name!r}: only its owner may ({permission})")


def list_projects(to: Services, call: Call) -> Response:
    """Return the caller's projects as a bare array."""
    return answer(
        [
            {"id": project.id, "name": project.name, "label": project.label, "role": project.role}
            for project in to.accounts.projects_of(call.user)
        ]
    )


def add_project(to: Services, call: Call) -> Response:
    """Create a project; its token is shown in this answer only."""
    wanted = call.json(NewProject)
    with to.store.transaction():
        project = to.accounts.add_project(call.user, wanted.name, wanted.label.strip())
        token = to.tokens.add_api_token(project.id, "project", DEVICE_PERMISSIONS, None).token
        for email in wanted.memberEmails:
            to.accounts.add_member(project.id, email)
    return answer({"id": project.id, "name": project.name, "label": project.label, "token": token}, 201)


def show_project(to: Services, call: Call, project: str) -> Response:
    """Return one project."""
    found = to.accounts.project(call.user, project)
    return answer({"id": found.id, "name": found.name, "label": found.label, "role": found.role})


def show_settings(to: Services, call: Call, project: str) -> Response:
    """Return a project's settings, flat beside `ok`."""
    found = to.accounts.project(call.user, project)
    return answer(
        {
            "ok": True,
            "name": found.name,
            "label": found.label,
            "created_at": iso(found.created_at),
            "enabled_levels": found.enabled_levels,
            "role": found.role,
            "effective_permissions": effective_permissions(found),
        }
    )


def list_sources(to: Services, call: Call, project: str) -> Response:
    """Return the project's sources."""
    found = to.accounts.project(call.user, project)
    return answer(
        {
            "sources": [
                {
                    "name": row["name"],
                    "description": row["description"],
                    "environment": row["environment"],
                }
                for row in to.fleet.sources(found.id)
            ]
        }
    )


def add_source(to: Services, call: Call, project: str) -> Response:
    """Create a source."""
    found = to.accounts.project(call.user, project)
    require(found, "sources:manage")
    wanted = call.json(NewSource)
    to.fleet.add_source(found.id, wanted.name, wanted.description or "", wanted.environment)
    return answer({"name": wanted.name}, 201)


def add_token(to: Services, call: Call, project: str) -> Response:
    """Make an API token; it is in clear in this answer only."""
    found = to.accounts.project(call.user, project)
    require(found, "tokens:manage")
    wanted = call.json(NewToken)
    if not wanted.name.strip():
        raise BadRequest("cannot create the token: it needs a name")
    source_id = None
    if wanted.source is not None:
        source_id = to.fleet.find_source(found.id, wanted.source)
        if source_id is None:
            raise NotFound(f"cannot create the token: no source {wanted.source!r}; create it first")
    made = to.tokens.add_api_token(found.id, wanted.name.strip(), wanted.permissions, source_id)
    return answer(
        {
            "id": made.id,
            "name": made.name,
            "token": made.token,
            "token_prefix": made.prefix,
            "permissions": wanted.permissions,
            "source_name": wanted.source,
            "created_at": iso(made.created_at),
        },
        201,
    )


# -- beyond what setting up needs ------------------------------------------------------------------------


class SettingsChange(msgspec.Struct, frozen=True, kw_only=True):
    """A new label, or the levels to keep."""

    label: str | None = None
    enabled_levels: list[str] | None = None


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody by address of mail."""

    email: str


def list_permissions(_to: Services, _call: Call) -> Response:
    """Return what tokens can be allowed."""
    return answer({"permissions": [{"id": name, "description": name.replace(":", ", ")} for name in PERMISSIONS]})


def validate_email(to: Services, call: Call) -> Response:
    """Tell whether somebody with this address has an account."""
    if to.accounts.find_by_email(call.json(Person).email) is None:
        raise NotFound("cannot find an account with this e-mail address; they must sign up first")
    return answer({"ok": True})


def change_settings(to: Services, call: Call, project: str) -> Response:
    """Change label or enabled levels."""
    found = to.accounts.project(call.user, project)
    require(found, "settings:write")
    change = call.json(SettingsChange)
    to.accounts.change_project(found.id, change.label, change.enabled_levels)
    return show_settings(to, call, project)


def list_settings_sources(to: Services, call: Call, project: str) -> Response:
    """Return the sources as the settings show them, with the host each was last seen on."""
    found = to.accounts.project(call.user, project)
    return answer(
        {
            "ok": True,
            "sources": [
                {
                    "id": row["id"],
                    "name": row["name"],
                    "description": row["description"],
                    "environment": row["environment"],
                    "server_hostname": to.fleet.host_of(row["id"])[1],
                    "created_at": iso(row["created_at"]),
                }
                for row in to.fleet.sources(found.id)
            ],
        }
    )


def delete_source(to: Services, call: Call, project: str, number: int) -> Response:
    """Delete a source with all its entries."""
    found = to.accounts.project(call.user, project)
    require(found, "sources:manage")
    to.fleet.delete_source(found.id, number)
    return answer(status=204)


def list_tokens(to: Services, call: Call, project: str) -> Response:
    """Return the project's tokens, without what makes them work."""
    found = to.accounts.project(call.user, project)
    require(found, "tokens:read")
    return answer(
        {
            "ok": True,
            "tokens": [
                {
                    "id": row["id"],
                    "name": row["name"],
                    "token_prefix": row["prefix"],
                    "permissions": row["permissions"].split(),
                    "source_name": row["source_name"],
                    "last_used_at": iso(row["last_used_at"]),
                    "created_at": iso(row["created_at"]),
                }
                for row in to.tokens.api_tokens(found.id)
            ],
        }
    )


def revoke_token(to: Services, call: Call, project: str, number: int) -> Response:
    """Make a token useless from now on."""
    found = to.accounts.project(call.user, project)
    require(found, "tokens:manage")
    to.tokens.revoke_api_token(found.id, number)
    return answer(status=204)


def list_members(to: Services, call: Call, project: str) -> Response:
    """Return who sees the project; the owner's row has no membership id."""
    found = to.accounts.project(call.user, project)
    return answer(
        {
            "ok": True,
            "members": [
                {
                    "id": None if row["role"] == "owner" else row["id"],
                    "user_id": row["id"],
                    "email": row["email"],
                    "pseudo": row["pseudo"],
                    "role": row["role"],
                    "avatar_url": None,
                    "created_at": iso(row["created_at"]),
                }
                for row in to.accounts.members(found.id)
            ],
        }
    )
