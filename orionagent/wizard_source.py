"""Owns an application's set-up, run in its folder: source and token, start command, registration, first start.

Must not know how a person is asked or signs in, nor how the daemon runs a script.
"""

import os
import pwd
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from orionagent.account import ENVIRONMENTS, Account, names
from orionagent.appfolder import AppFolder
from orionagent.backend import Backend
from orionagent.config import (
    NAME,
    AgentConfig,
    ScriptConfig,
    check_script_target,
    load_agent_config,
    load_scripts,
    parse_script,
    save_scripts,
)  # fmt: skip
from orionagent.errors import NotPermitted, NotRunning, OrionError, Permanent
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.prompts import Choice, Prompts, Question
from orionagent.proposals import propose_commands, propose_name
from orionagent.render import render_entries, render_outcome
from orionagent.signin import Surroundings, sign_in
from orionagent.wizard import choose_project

SOURCE = Question("Which source is this application?", "--name=<name>")
NEW_SOURCE = Question("Name of the new source:", "--name=<name>")
ENVIRONMENT = Question("Its environment?", "--yes")
COMMAND = Question("How is it started?", "--command=<command>")
EDIT = Question("Start command:", "--command=<command>")
RESTART = Question("Start it again when it crashes?", "--no-auto-restart or --yes")
CAPTURE = Question("Send what it prints as logs?", "--no-capture or --yes")
USER = Question("Which user does it run as?", "--user=<user>")
TOKEN_AGAIN = Question("This folder has a token already. What now?", "--token=<token>")
GITIGNORE = Question("Keep the token out of git by a line in .gitignore?", "--yes")
OTHER = "+"  # no source and no command is called this
FIRST_OUTPUT_S = 5.0
FIRST_OUTPUT_LINES = 10


class SourceWishes(NamedTuple):
    """What the command line says about an application's set-up."""

    name: str | None = None
    command: str | None = None
    token: str | None = None
    project: str | None = None
    user: str | None = None
    auto_restart: bool | None = None
    capture: bool | None = None


def set_up_source(
    wishes: SourceWishes, folder: AppFolder, prompts: Prompts, paths: Paths, around: Surroundings
) -> None:
    """Choose source, token and start command, write .orion/config.json, register the script and start it.

    Blocks for as long as the person and the backend take.

    Raises:
        NotPermitted: the folder or the registry is somebody else's; the message says what to type.
        OrionError: as `sign_in`, or what backend or daemon refuse.
    """
    folder.require_writable()
    server = server_config(paths)
    backend = Backend(server, os.uname().nodename)
    try:
        source, make_token = choose_source(wishes, folder, prompts, server, backend, around)
        script = describe_script(wishes, source, folder, prompts, paths)
        check_script_target(script)
        # Only now, when nothing is left to ask: whoever walks away leaves no token behind.
        token = make_token()
    finally:
        backend.close()
    if token is not None:
        folder.write_token(token, backend.base if server.apiUrl != AgentConfig().apiUrl else None)
        prompts.say(f"Written: {folder.config_path}")
    if folder.wants_gitignore() and prompts.confirm(GITIGNORE, True):
        folder.add_gitignore()
    register_script(script, prompts, paths)


def server_config(paths: Paths) -> AgentConfig:
    """Return the server's configuration, as far as this user may know it."""
    if os.path.exists(paths.config) and not os.access(paths.config, os.R_OK):
        try:
            status = client.call(paths.socket, "status", timeout_s=10.0)
        except OrionError:
            return AgentConfig()
        known = {key: status[key] for key in ("apiUrl", "project") if isinstance(status.get(key), str)}
        return AgentConfig(**known)
    return load_agent_config(paths)


def choose_source(
    wishes: SourceWishes,
    folder: AppFolder,
    prompts: Prompts,
    server: AgentConfig,
    backend: Backend,
    around: Surroundings,
) -> tuple[str, Callable[[], str | None]]:
    """Return the source's name and how to get its token (None: the one that the folder has stays)."""
    proposed = wishes.name or propose_name(folder.path)
    if folder.token() and not wishes.token:
        keep = [Choice("keep", "keep it"), Choice("renew", "make another")]
        if prompts.select(TOKEN_AGAIN, keep, "keep") == "keep":
            return wishes.name or prompts.text(NEW_SOURCE, proposed, _check_source), lambda: None
    person = sign_in(backend, prompts, wishes.token, use_browser=True, around=around)
    if not person.sees_projects:
        # A token that is bound to its source already: the backend knows which, we only name the script.
        return wishes.name or prompts.text(NEW_SOURCE, proposed, _check_source), lambda: person.token
    project = choose_project(person.account, prompts, wishes.project, server.project)
    source = pick_source(person.account, prompts, project, wishes.name, proposed)
    return source, lambda: person.account.make_token(project, f"{source} agent", source)


def pick_source(account: Account, prompts: Prompts, project: str, wanted: str | None, proposed: str) -> str:
    """Return the name of an existing or new source."""
    existing = names(account.sources(project))
    if wanted is not None and wanted in existing:
        return wanted
    if wanted is None and existing:
        choices = [*(Choice(name, name) for name in existing), Choice(OTHER, "a new source")]
        chosen = prompts.select(SOURCE, choices, proposed if proposed in existing else OTHER)
        if chosen != OTHER:
            return chosen
    while True:
        name = wanted or prompts.text(NEW_SOURCE, proposed, lambda typed: _check_new_source(typed, existing))
        environment = prompts.select(ENVIRONMENT, [Choice(each, each) for each in ENVIRONMENTS], ENVIRONMENTS[0])
        try:
            account.add_source(project, name, environment)
        except Permanent as error:
            if wanted is not None or name == proposed:
                raise
            prompts.say(f"  {error.message}")
        else:
            return name


def _check_source(text: str) -> str | None:
    return None if NAME.fullmatch(text) and len(text) <= 64 else "lowercase letters, digits and single hyphens"


def _check_new_source(text: str, existing: Sequence[str]) -> str | None:
    return _check_source(text) or ("there is a source of this name; choose another" if text in existing else None)


def describe_script(
    wishes: SourceWishes, source: str, folder: AppFolder, prompts: Prompts, paths: Paths
) -> ScriptConfig:
    """Return the script to register, asking for what the command line does not say."""
    fields: dict[str, Any] = {"name": source, "cwd": folder.path}
    if _check_source(source) is not None:
        fields |= {"name": propose_name(source), "source": source}
    fields["command"] = wishes.command or ask_command(folder, prompts)
    if not (prompts.confirm(RESTART, True) if wishes.auto_restart is None else wishes.auto_restart):
        fields["autoRestart"] = False
    if not (prompts.confirm(CAPTURE, True) if wishes.capture is None else wishes.capture):
        fields["captureOutput"] = False
    user = choose_user(wishes.user, folder, prompts, paths)
    return parse_script(fields | ({"user": user} if user is not None else {}))


def ask_command(folder: AppFolder, prompts: Prompts) -> str:
    """Return the start command: one that the folder suggests, edited by the person."""
    proposals = propose_commands(folder.read)
    chosen = OTHER
    if proposals:
        choices = [Choice(each.command, f"{each.command}   ({each.origin})") for each in proposals]
        chosen = prompts.select(COMMAND, [*choices, Choice(OTHER, "another command")], proposals[0].command)
    default = "" if chosen == OTHER else chosen
    return prompts.text(EDIT, default, lambda typed: None if typed.strip() else "a shell command")


def choose_user(wanted: str | None, folder: AppFolder, prompts: Prompts, paths: Paths) -> str | None:
    """Return whom the script runs as: the folder's owner unless told, never root unasked.

    None where the daemon runs as this very user and could not become anybody else.
    """
    if wanted is not None:
        return wanted
    if paths.root != "/" and os.geteuid() != 0:
        return None
    owner = folder.owner_uid
    if owner == 0:
        return prompts.text(USER, "", _check_user)
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return prompts.text(USER, "", _check_user)


def _check_user(text: str) -> str | None:
    try:
        pwd.getpwnam(text)
    except KeyError:
        return "there is no such user on this server"
    return None


def register_script(script: ScriptConfig, prompts: Prompts, paths: Paths) -> None:
    """Register the script with the daemon, or in the file where none runs; start it and show its first output.

    Raises:
        NotPermitted: this user may not; the message is the line to type.
    """
    fields = {key: value for key, value in _fields(script).items() if value is not None}
    try:
        try:
            row = client.call(paths.socket, "script:add", **fields)
        except OrionError as error:
            if error.code != "exists":
                raise
            rest = {key: value for key, value in fields.items() if key != "name"}
            row = client.call(paths.socket, "script:update", name=script.name, fields=rest)
        if row.get("phase") not in ("running", "starting"):
            client.call(paths.socket, "script:start", name=script.name)
    except NotRunning:
        save_in_file(script, prompts, paths)
    except OrionError as error:
        if error.code != "not-permitted":
            raise
        raise NotPermitted(f"cannot register {script.name}: permission denied; run:\n{sudo_line(script)}") from None
    else:
        show_start(script, prompts, paths)


def _fields(script: ScriptConfig) -> dict[str, Any]:
    keys = ("name", "command", "cwd", "autoRestart", "captureOutput", "user", "source")
    return {key: getattr(script, key) for key in keys}


def save_in_file(script: ScriptConfig, prompts: Prompts, paths: Paths) -> None:
    """Register the script in scripts.json for the next start of the daemon. Raises NotPermitted, ConfigError."""
    if not os.access(paths.etc, os.W_OK | os.X_OK):
        raise NotPermitted(f"cannot register {script.name}: permission denied; run:\n{sudo_line(script)}")
    others = [each for each in load_scripts(paths) if each.name != script.name]
    save_scripts(paths, [*others, script])
    prompts.say(f"Written: {paths.scripts}")
    prompts.say(f"{script.name} starts with the daemon, which is not running.")


def sudo_line(script: ScriptConfig) -> str:
    """Return the exact line that registers the script with more rights."""
    words = ["sudo", "orion", "script", "add", script.name, script.command, f"--cwd={script.cwd}"]
    words += [f"--user={script.user}"] if script.user else []
    words += ["--no-auto-restart"] if not script.autoRestart else []
    words += ["--no-capture"] if not script.captureOutput else []
    words += [f"--set=source={script.source}"] if script.source else []
    return shlex.join(words)


def show_start(script: ScriptConfig, prompts: Prompts, paths: Paths) -> None:
    """Show the script's state and its first lines, waiting a little for them."""
    deadline = time.monotonic() + (FIRST_OUTPUT_S if script.captureOutput else 0.0)
    entries: list[dict[str, Any]] = []
    while not entries and time.monotonic() < deadline:
        time.sleep(0.2)
        try:
            entries = client.call(paths.socket, "logs:tail", name=script.name, lines=FIRST_OUTPUT_LINES)["entries"]
        except OrionError:
            break
    row = client.call(paths.socket, "script:show", name=script.name)
    prompts.say(render_outcome(row).rstrip("\n"))
    if entries:
        prompts.say(render_entries(entries).rstrip("\n"))
    prompts.say(f"Follow it with: orion logs {script.name} --follow")
