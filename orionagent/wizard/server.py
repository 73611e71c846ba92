"""Owns the server's set-up: from an installed program to a server that its backend knows.

Must not know how a person is asked or signs in, nor what HTTP looks like. Nothing is written before the backend
has taken a heartbeat under the new token, and then one file, whole.
"""

import os
import re
import socket
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from orionagent import __version__
from orionagent.backend import Backend
from orionagent.config import AgentConfig, load_agent_config, save_agent_config
from orionagent.errors import ConfigError, NotPermitted, OrionError, Permanent
from orionagent.ipc import client
from orionagent.paths import Paths
from orionagent.text import duration
from orionagent.wire import Heartbeat
from orionagent.wizard.account import Account, names
from orionagent.wizard.prompts import Choice, Prompts, Question, nothing_written_yet
from orionagent.wizard.registration import start_line, sudo_line
from orionagent.wizard.signin import Surroundings, naming_what_to_check, sign_in

PROJECT = Question("Which project does this server belong to?", "--project=<name>")
NEW_PROJECT = Question("Name of the new project (lowercase letters, digits, hyphens):", "--project=<name>")
LABEL = Question("Title of the project, as people read it:", "--yes")
AGAIN = Question("This server is set up already. What now?", "--token=<token> or --project=<name>")
SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
RESERVED = ("new", "permissions", "settings", "validate-email")
SKEW_WARNING_S = 5.0
# Not a slug, so no project can have this name.
CREATE = "+"


class ServerWishes(NamedTuple):
    """What the command line says about the server's set-up."""

    api_url: str | None = None
    token: str | None = None
    project: str | None = None
    use_browser: bool = True


def set_up_server(wishes: ServerWishes, prompts: Prompts, paths: Paths, around: Surroundings) -> AgentConfig:
    """Sign in, choose project and token, register the server, write config.json; return what is in force.

    Blocks for as long as the person and the backend take.

    Raises:
        NotPermitted: the configuration cannot be written by this user.
        ConfigError: the configuration that is there is broken, or the address is unusable.
        OrionError: as `sign_in`, or what the backend refuses.
    """
    require_writable(paths, sudo_line(_words(wishes), paths))
    before = load_agent_config(paths)
    hostname = before.hostname or socket.gethostname()
    with nothing_written_yet(), naming_what_to_check():
        config = _decide(before, wishes, hostname, prompts, around)
        if config is None:
            prompts.say("Nothing changed.")
            return before
        skew_s = register(config, hostname)
    make_private(paths)
    save_agent_config(paths, config)
    prompts.say(f"{hostname} now reports to {where(config)}.")
    prompts.say(f"Written: {paths.config}")
    if skew_s is not None and abs(skew_s) >= SKEW_WARNING_S:
        way = "behind" if skew_s > 0 else "ahead of"
        prompts.say(
            f"This machine's clock is {duration(abs(skew_s))} {way} the backend's; run: sudo timedatectl set-ntp true"
        )
    prompts.say(next_step(paths))
    return config


def make_private(paths: Paths) -> None:
    """Make the folder of config.json, and take the file from all others: what is written keeps a file's mode.

    Raises:
        ConfigError: the disk does not let us.
    """
    try:
        os.makedirs(paths.etc, mode=0o755, exist_ok=True)
        if os.path.exists(paths.config):
            os.chmod(paths.config, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {paths.config}: {error.strerror}; nothing was changed") from error


def where(config: AgentConfig) -> str:
    """Return what a configuration reports to, as people read it."""
    return f"{config.apiUrl}{f', project {config.project}' if config.project else ''}"


def _decide(
    before: AgentConfig, wishes: ServerWishes, hostname: str, prompts: Prompts, around: Surroundings
) -> AgentConfig | None:
    """Return the configuration that the person wants, with a new token; None to keep what there is."""
    config = msgspec.structs.replace(before, apiUrl=wishes.api_url or before.apiUrl)
    project = wishes.project
    if before.token and not (wishes.token or wishes.project or wishes.api_url):
        prompts.say(f"It reports to {where(before)}.")
        choices = [
            Choice("keep", "keep everything as it is"),
            Choice("project", "change the project"),
            Choice("renew", "renew the token"),
        ]
        wanted = prompts.select(AGAIN, choices, "keep")
        if wanted == "keep":
            return None
        project = before.project if wanted == "renew" else None
    backend = Backend(config, hostname)
    try:
        person = sign_in(backend, prompts, wishes.token, use_browser=wishes.use_browser, around=around)
        if not person.sees_projects:
            # A token that only sends knows its project, and we have to believe what we are told of it.
            return msgspec.structs.replace(config, token=person.token, project=project)
        project = choose_project(person.account, prompts, project, before.project)
        token = person.account.make_token(project, f"{hostname} agent")
        return msgspec.structs.replace(config, token=token, project=project)
    finally:
        backend.close()


def _words(wishes: ServerWishes) -> list[str]:
    """Return the command's words once more, all but the token."""
    given = {"--api-url": wishes.api_url, "--project": wishes.project}
    words = [f"{option}={value}" for option, value in given.items() if value is not None]
    words += ["--token=-"] if wishes.token else []
    return ["setup", "--server", *words, *([] if wishes.use_browser else ["--no-browser"])]


def require_writable(paths: Paths, sudo: str) -> None:
    """Check that config.json can be written, before anybody is asked anything; `sudo` is the line to type if not.

    Raises:
        NotPermitted: this user may not.
        ConfigError: nobody can (read-only disk).
    """
    folder = paths.etc
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if os.access(folder, os.W_OK | os.X_OK):
        return
    if os.geteuid() == 0 or os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise ConfigError(f"cannot write {paths.config}: {folder} is on a read-only disk; remount it writable")
    raise NotPermitted(f"cannot write {paths.config}: permission denied; run: {sudo}")


def choose_project(account: Account, prompts: Prompts, wanted: str | None, preferred: str | None = None) -> str:
    """Return the name of an existing or new project; `preferred` is the default where it exists.

    Raises: as Account and prompts.
    """
    existing = account.projects()
    if wanted is not None:
        if wanted in names(existing):
            return wanted
        wrong = check_slug(wanted)
        if wrong is not None:
            raise OrionError(f"cannot use project {wanted!r}: {wrong}", code="usage")
        # A name on the command line that nobody has yet is a wish to create it; a person may say no.
        if not prompts.confirm(Question(f"There is no project {wanted}. Create it?", "--yes"), True):
            wanted = None
    if wanted is None:
        choices = [Choice(each.name, f"{each.name}  {each.label}".rstrip()) for each in existing]
        choices.append(Choice(CREATE, "a new project"))
        only = existing[0].name if len(existing) == 1 else None
        chosen = prompts.select(PROJECT, choices, preferred if preferred in names(existing) else only)
        if chosen != CREATE:
            return chosen
    return create_project(account, prompts, wanted, names(existing))


def create_project(account: Account, prompts: Prompts, wanted: str | None, taken: list[str]) -> str:
    """Create a project, asking again where the backend does not like its name; return the name."""
    while True:
        name = wanted or prompts.text(NEW_PROJECT, "", lambda typed: _check_new(typed, taken))
        label = name.replace("-", " ").title()
        label = label if wanted else prompts.text(LABEL, label, lambda _: None)
        try:
            return account.add_project(name, label).name
        except Permanent as error:
            if wanted is not None:
                raise
            prompts.say(f"  {error.message}")


def check_slug(text: str) -> str | None:
    """Return what is wrong with a project's name, None when nothing is."""
    if not SLUG.fullmatch(text):
        return "lowercase letters, digits and hyphens only, with no hyphen at either end"
    if text in RESERVED:
        return "this name is reserved; choose another"
    return None


def _check_new(text: str, taken: list[str]) -> str | None:
    return check_slug(text) or ("there is a project of this name; choose another" if text in taken else None)


def register(config: AgentConfig, hostname: str) -> float | None:
    """Send one heartbeat under the new token, so that the server is known; return the backend's clock minus ours.

    Raises:
        BackendError: it was not taken.
    """
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    beat = Heartbeat(hostname=hostname, agentVersion=__version__, bootId=boot_id, timestamp=now)
    backend = Backend(config, hostname)
    try:
        backend.send_heartbeat(msgspec.json.encode(beat))
    finally:
        backend.close()
    return backend.clock_skew_s


def next_step(paths: Paths) -> str:
    """Have a running daemon take the configuration up; return what the person does next."""
    try:
        client.call(paths.socket, "reload", timeout_s=30.0)
    except OrionError as error:
        if error.code != "not-running":
            return f"The running daemon has not taken it up: {error.message}"
        return f"Next: {start_line(paths)}"
    return "The running daemon has taken it up. Next, in an application's folder: orion setup --source"
