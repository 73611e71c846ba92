"""Owns guessing how an application is started from what lies in its folder.

Must not know files: it is given a way to read them. A guess is only ever a proposal that a person edits.
"""

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any, NamedTuple

# Returns a file's text by its name in the folder, None where there is none.
Read = Callable[[str], str | None]

NPM_SCRIPTS = ("start", "start:prod", "serve")
MAKE_TARGETS = ("run", "start", "serve")
PYTHON_FILES = ("main.py", "app.py", "server.py")
NODE_FILES = ("index.js", "server.js", "app.js", "dist/index.js")


class Proposal(NamedTuple):
    """A command that might start the application, and where the guess comes from."""

    command: str
    origin: str


def propose_commands(read: Read) -> list[Proposal]:
    """Return commands that might start the application in a folder, the likeliest first, each once."""
    found = [
        *_from_procfile(read("Procfile") or ""),
        *_from_package(read("package.json") or ""),
        *_from_pyproject(read("pyproject.toml") or ""),
        *_from_makefile(read("Makefile") or ""),
        *_from_files(read),
    ]
    return list({proposal.command: proposal for proposal in reversed(found)}.values())[::-1]


def propose_name(folder: str) -> str:
    """Return a script's name made from a folder's name; empty when nothing is left of it."""
    last = folder.rstrip("/").rpartition("/")[2]
    return "-".join(re.findall(r"[a-z0-9]+", last.lower()))[:64].strip("-")


def _from_procfile(text: str) -> list[Proposal]:
    lines = re.findall(r"(?m)^([A-Za-z0-9_-]+):[ \t]*(\S.*?)[ \t]*$", text)
    return [Proposal(command, f"Procfile, {kind}") for kind, command in sorted(lines, key=lambda it: it[0] != "web")]


def _from_package(text: str) -> list[Proposal]:
    try:
        package = json.loads(text)
    except ValueError:
        return []
    scripts = package.get("scripts") if isinstance(package, dict) else None
    found = []
    for name in NPM_SCRIPTS:
        command = scripts.get(name) if isinstance(scripts, dict) else None
        if not isinstance(command, str) or not command.strip():
            continue
        if re.fullmatch(r"node [^;&|<>$`]+", command):
            # Without npm between, the process that is supervised is the application itself.
            found.append(Proposal(command, f"package.json, scripts.{name}"))
        found.append(Proposal(f"npm {name}" if name == "start" else f"npm run {name}", f"package.json, scripts.{name}"))
    main = package.get("main") if isinstance(package, dict) else None
    if isinstance(main, str) and not found and re.fullmatch(r"[\w./-]+", main):
        found.append(Proposal(f"node {main}", "package.json, main"))
    return found


def _from_pyproject(text: str) -> list[Proposal]:
    try:
        project = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return []
    tools: Any = project.get("tool")
    tables = [project.get("project"), tools.get("poetry") if isinstance(tools, dict) else None]
    found = []
    for table in tables:
        scripts = table.get("scripts") if isinstance(table, dict) else None
        if isinstance(scripts, dict):
            found += [
                Proposal(name, f"pyproject.toml, script {name}") for name in scripts if re.fullmatch(r"[\w.-]+", name)
            ]
    return found


def _from_makefile(text: str) -> list[Proposal]:
    targets = re.findall(r"(?m)^([\w-]+)[ \t]*:(?!=)", text)
    return [Proposal(f"make {target}", f"Makefile, {target}") for target in MAKE_TARGETS if target in targets]


def _from_files(read: Read) -> list[Proposal]:
    if read("manage.py") is not None:
        return [Proposal("python3 manage.py runserver --noreload", "manage.py")]
    found = [Proposal(f"python3 {name}", name) for name in PYTHON_FILES if read(name) is not None]
    return found + [Proposal(f"node {name}", name) for name in NODE_FILES if read(name) is not None]
