"""Owns an application's set-up, run in its folder: its source and token, its start command, its user.

Must not know how a person is asked or signs in, nor how a script comes to run.
"""

import os
import pwd
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from orionagent.backend import Backend
from orionagent.config import (
    NAME,
    AgentConfig,
    ScriptConfig,
    check_script_target,
    load_agent_config,
    parse_script,
)  # fmt: skip
from orionagent.errors import NotPermitted, OrionError, Permanent
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.wizard.account import ENVIRONMENTS, Account, names
from orionagent.wizard.appfolder import AppFolder
from orionagent.wizard.prompts import Choice, Prompts, Question, nothing_written_yet
from orionagent.wizard.proposals import Proposal, propose_commands, propose_name
from orionagent.wizard.registration import find_registered, register_script, sudo_line
from orionagent.wizard.server import choose_project
from orionagent.wizard.signin import Surroundings, naming_what_to_check, sign_in

SOURCE = Question("Which source is this application?", "--name=<name>")
NEW_SOURCE = Question("Name of the new source:", "--name=<name>")
SCRIPT_NAME = Question("What is it called in `orion script list`?", "--name=<name>")
ENVIRONMENT = Question("Its environment?", "--yes")
COMMAND = Question("How is it started?", "--command=<command>")
EDIT = Question("Start command:", "--command=<command>")
RESTART = Question("Start it again when it crashes?", "--no-auto-restart or --yes")
CAPTURE = Question("Send what it prints as logs?", "--no-capture or --yes")
USER = Question("Which user does it run as?", "--user=<user>")
ROOTS_USER = Question("The folder belongs to root. Which user does the application run as?", "--user=<user>")
TOKEN_AGAIN = Question("This folder has a token already. What now?", "--token=<token>")
GITIGNORE = Question("Keep the token out of git by a line in .gitignore?", "--yes")
OTHER = "+"  # no source and no command is called this


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
    folder.require_writable(sudo_line(_words(wishes), paths))
    server = server_config(paths, sudo_line(_words(wishes), paths))
    known = find_registered(paths, folder.path)
    backend = Backend(server, os.uname().nodename)
    try:
        with nothing_written_yet(), naming_what_to_check():
            source, make_token = choose_source(wishes, folder, known, prompts, server, backend, around)
            script = describe_script(wishes, source, folder, known, prompts, paths)
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
    register_script(script, prompts.say, paths)


def _words(wishes: SourceWishes) -> list[str]:
    """Return the command's words once more, all but the token."""
    words = ["setup", "--source"]
    given = {"--name": wishes.name, "--command": wishes.command, "--project": wishes.project, "--user": wishes.user}
    words += [f"{option}={value}" for option, value in given.items() if value is not None]
    words += ["--token=-"] if wishes.token else []
    words += ["--no-auto-restart"] if wishes.auto_restart is False else []
    return words + (["--no-capture"] if wishes.capture is False else [])


def server_config(paths: Paths, sudo: str) -> AgentConfig:
    """Return the server's configuration, as far as this user may know it.

    Raises:
        NotPermitted: its file is for root alone and no daemon tells; guessing would send a token elsewhere.
        ConfigError: the file cannot be used.
    """
    if os.path.exists(paths.config) and not os.access(paths.config, os.R_OK):
        try:
            status = client.call(paths.socket, "status", timeout_s=10.0)
        except OrionError as error:
            raise NotPermitted(
                f"cannot tell which backend this server reports to: {paths.config} is not for this user, and "
                f"{error.message.split(';')[0]}; run: {sudo}"
            ) from error
        known = {key: status[key] for key in ("apiUrl", "project") if isinstance(status.get(key), str)}
        return AgentConfig(**known)
    return load_agent_config(paths)


def choose_source(
    wishes: SourceWishes,
    folder: AppFolder,
    known: ScriptConfig | None,
    prompts: Prompts,
    server: AgentConfig,
    backend: Backend,
    around: Surroundings,
) -> tuple[str, Callable[[], str | None]]:
    """Return the source's name and how to get its token (None: the one that the folder has stays)."""
    proposed = wishes.name or (known.name if known is not None else propose_name(folder.path))
    if folder.token() and not wishes.token:
        keep = [Choice("keep", "keep it"), Choice("renew", "make another")]
        if prompts.select(TOKEN_AGAIN, keep, "keep") == "keep":
            return wishes.name or prompts.text(SCRIPT_NAME, proposed, _check_source), lambda: None
    person = sign_in(backend, prompts, wishes.token, use_browser=True, around=around)
    if not person.sees_projects:
        # A token that is bound to its source already: the backend knows which, we only name the script.
        return wishes.name or prompts.text(SCRIPT_NAME, proposed, _check_source), lambda: person.token
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
    wishes: SourceWishes,
    source: str,
    folder: AppFolder,
    known: ScriptConfig | None,
    prompts: Prompts,
    paths: Paths,
) -> ScriptConfig:
    """Return the script to register, asking for what the command line does not say.

    What is registered for this folder already is the default.
    """
    fields: dict[str, Any] = {"name": source, "cwd": folder.path}
    if _check_source(source) is not None:
        fields |= {"name": propose_name(source), "source": source}
    restarts, captures = (True, True) if known is None else (known.autoRestart, known.captureOutput)
    fields["command"] = wishes.command or ask_command(folder, known, prompts)
    if not (prompts.confirm(RESTART, restarts) if wishes.auto_restart is None else wishes.auto_restart):
        fields["autoRestart"] = False
    if not (prompts.confirm(CAPTURE, captures) if wishes.capture is None else wishes.capture):
        fields["captureOutput"] = False
    user = choose_user(wishes.user, folder, known, prompts, paths)
    return parse_script(fields | ({"user": user} if user is not None else {}))


def ask_command(folder: AppFolder, known: ScriptConfig | None, prompts: Prompts) -> str:
    """Return the start command: the one that is registered or one that the folder suggests, edited by the person."""
    proposals = [] if known is None else [Proposal(known.command, "as it is now")]
    proposals += [each for each in propose_commands(folder.read) if known is None or each.command != known.command]
    chosen = OTHER
    if proposals:
        choices = [Choice(each.command, f"{each.command}   ({each.origin})") for each in proposals]
        chosen = prompts.select(COMMAND, [*choices, Choice(OTHER, "another command")], proposals[0].command)
    default = "" if chosen == OTHER else chosen
    return prompts.text(EDIT, default, lambda typed: None if typed.strip() else "a shell command")


def choose_user(
    wanted: str | None, folder: AppFolder, known: ScriptConfig | None, prompts: Prompts, paths: Paths
) -> str | None:
    """Return whom the script runs as: the folder's owner is proposed, root never.

    None where the agent is not root's and could not become anybody else.
    """
    if wanted is not None:
        return wanted
    if _agent_uid(paths) != 0:
        return None
    if known is not None and known.user is not None:
        return prompts.text(USER, known.user, _check_user)
    owner = folder.owner_uid
    if owner == 0:
        return prompts.text(ROOTS_USER, "", _check_user)
    try:
        proposed = pwd.getpwuid(owner).pw_name
    except KeyError:
        proposed = ""
    return prompts.text(USER, proposed, _check_user)


def _agent_uid(paths: Paths) -> int:
    """Return who runs the agent: whom its folder belongs to, root on a server that has none yet."""
    try:
        return os.stat(paths.etc).st_uid
    except FileNotFoundError:
        return 0 if paths.root == "/" else os.geteuid()


def _check_user(text: str) -> str | None:
    try:
        pwd.getpwnam(text)
    except KeyError:
        return f"there is no user {text!r} on this server" if text else "the name of a user of this server"
    return None
