"""Owns the commands of `orion`: one function each, their words on success and failure, the exit codes.

Must not know how the daemon does anything; imports what a command needs only when it is called, so that the
client commands start without gevent, requests, psutil and msgspec.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from orionagent import __build__, __version__, render, scriptcommands, usage
from orionagent.errors import NotRunning, OrionError
from orionagent.fastpath import version_text
from orionagent.fields import RING_LINES, current, parse_lines, parse_metadata
from orionagent.ipc import client
from orionagent.output import put
from orionagent.paths import Paths
from orionagent.request import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    Request,
    json_line,
    not_running,
    report,
    report_error,
    tell,
)

WATCH_INTERVAL_S = 2.0


def main(arguments: Sequence[str]) -> int:
    """Run the command that the words behind `orion` name; return the exit code."""
    wants_json = "--json" in usage.settle_log(arguments)
    try:
        if usage.wants_help(arguments):
            put(usage.help_text())
            return DONE
        if list(arguments) == ["--version"]:
            arguments = ["version"]
        options = usage.parse(arguments)
        request = Request(options, Paths.from_environment())
        return find_command(options)(request)
    except usage.UsageError as error:
        return report(str(error), "usage", USAGE, wants_json)
    except OrionError as error:
        return report_error(error, wants_json)
    except BrokenPipeError:
        return DONE  # the reader has seen enough
    except KeyboardInterrupt:
        return INTERRUPTED


def find_command(options: dict[str, Any]) -> Callable[[Request], int]:
    """Return the function for the command word that docopt found."""
    for path, function in COMMANDS:
        if all(options[word] for word in path.split()):
            return function
    raise AssertionError(options)


def setup(request: Request) -> int:
    """`orion setup --server` and `orion setup --source`."""
    from orionagent.wizard.prompts import choose_prompts  # noqa: PLC0415
    from orionagent.wizard.signin import Surroundings, find_token  # noqa: PLC0415

    options = request.options
    around = Surroundings(uid=os.geteuid())
    token = find_token(options["--token"], around.environment)
    prompts = choose_prompts(unattended=options["--yes"])
    if options["--server"]:
        from orionagent.wizard.server import ServerWishes, set_up_server  # noqa: PLC0415

        server = ServerWishes(options["--api-url"], token, options["--project"], not options["--no-browser"])
        set_up_server(server, prompts, request.paths, around)
        return DONE
    from orionagent.wizard.appfolder import AppFolder  # noqa: PLC0415
    from orionagent.wizard.source import SourceWishes, set_up_source  # noqa: PLC0415

    source = SourceWishes(
        name=options["--name"],
        command=options["--command"],
        token=token,
        project=options["--project"],
        user=options["--user"],
        auto_restart=False if options["--no-auto-restart"] else None,
        capture=False if options["--no-capture"] else None,
    )
    set_up_source(source, AppFolder(current(os.getcwd)), prompts, request.paths, around)
    return DONE


def status(request: Request) -> int:
    """`orion status`."""
    if not request.options["--watch"]:
        return show_status(request)
    try:
        while True:
            try:
                show_status(request, clear=not request.wants_json and os.isatty(1))
            except NotRunning as error:
                tell(not_running(error), error.code, request.wants_json)
            time.sleep(WATCH_INTERVAL_S)
    except KeyboardInterrupt:
        return DONE


def show_status(request: Request, *, clear: bool = False) -> int:
    """Print the daemon's own rendering, or its data."""
    if request.wants_json:
        return request.show(request.call("status"), "")
    data = request.call("status", render=True, color=request.color, columns=request.columns)
    text = data.get("text")
    if not isinstance(text, str):
        text = render.render_status(data, color=request.color, columns=request.columns)
    put(("\x1b[H\x1b[2J" if clear else "") + text)
    return DONE


def log(request: Request) -> int:
    """`orion log`."""
    options = request.options
    message = options["<message>"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    params: dict[str, Any] = {"level": options["<level>"], "message": message}
    if options["--from"] is not None:
        params["source"] = options["--from"]
    if options["--tag"]:
        params["tags"] = options["--tag"]
    if options["--meta"] is not None:
        params["metadata"] = parse_metadata(options["--meta"])
    return request.show(request.call("log", **params), "")


def logs(request: Request) -> int:
    """`orion logs`."""
    options, follow = request.options, request.options["--follow"]
    wanted = parse_lines(options["--lines"])
    accepted = usage.LEVELS[usage.LEVELS.index(options["--level"]) :] if options["--level"] else usage.LEVELS
    params: dict[str, Any] = {"lines": wanted if options["--level"] is None else RING_LINES}
    if options["<name>"]:
        params["name"] = options["<name>"][0]
    if follow:
        return follow_logs(request, params, accepted, wanted)
    entries = [entry for entry in request.call("logs:tail", **params)["entries"] if entry["level"] in accepted]
    entries = last_of(entries, wanted)
    if request.wants_json:
        put("".join(map(json_line, entries)))
    else:
        put(render.render_entries(entries, color=request.color))
    return DONE


def last_of(entries: list[dict[str, Any]], wanted: int) -> list[dict[str, Any]]:
    """Return the last `wanted` entries; 0 are none."""
    return entries[max(len(entries) - wanted, 0) :]


def follow_logs(request: Request, params: dict[str, Any], accepted: Sequence[str], wanted: int) -> int:
    """Print the last `wanted` entries and then all that come, until Ctrl-C or the daemon's end."""
    past: list[dict[str, Any]] = []
    try:
        for reply in client.stream(request.paths.socket, "logs:tail", follow=True, **params):
            entry, left = reply["entry"], reply.get("pastLeft")
            if entry["level"] in accepted:
                past.append(entry)
            if left:  # how many of them are wanted is known at the end of the past
                continue
            for each in past if left is None else last_of(past, wanted):
                request.show(each, render.render_entries([each], color=request.color))
            past.clear()
    except KeyboardInterrupt:
        return DONE
    raise NotRunning("cannot follow the logs any further: the daemon has closed the connection")


def buffer_flush(request: Request) -> int:
    """`orion buffer flush`: failed when something waits and nothing of it could be sent."""
    data = request.call("buffer:flush")
    status = request.show(data, render.render_flush(data))
    return FAILED if data.get("remaining") and not data.get("sent") else status


def ping(request: Request) -> int:
    """`orion ping`."""
    data = request.call("ping")
    return request.show(data, f"pong (orion-agent {data['version']})\n")


def reload(request: Request) -> int:
    """`orion reload`."""
    data = request.call("reload")
    return request.show(data, render.render_reload(data))


def doctor(request: Request) -> int:
    """`orion doctor`: fails when something needs to be mended."""
    from orionagent.doctor import diagnose  # noqa: PLC0415
    from orionagent.findings import is_sick, render_findings  # noqa: PLC0415

    findings = diagnose(request.paths, os.uname().nodename)
    request.show([finding._asdict() for finding in findings], render_findings(findings, color=request.color))
    return FAILED if is_sick(findings) else DONE


def version(request: Request) -> int:
    """`orion version`: of this command, and of the daemon where that is another one."""
    try:
        daemon = request.call("version")
    except OrionError:
        daemon = None  # this command's version is known all the same; what ails the daemon is the doctor's matter
    text = version_text()
    if daemon is not None and daemon.get("version") != __version__:
        text += f"the running daemon is {daemon.get('version')}; restart it to use this version\n"
    return request.show({"version": __version__, "build": __build__ or None, "daemon": daemon}, text)


def completion(request: Request) -> int:
    """`orion completion`."""
    from orionagent.completion import completion as make  # noqa: PLC0415

    put(make(next(shell for shell in ("bash", "zsh", "fish") if request.options[shell])))
    return DONE


def daemon(request: Request) -> int:
    """`orion daemon`: returns when the agent has ended."""
    import signal  # noqa: PLC0415

    # Their default is to end the process: while the agent's parts are loaded they wait in the kernel instead, for
    # a stop in that moment must still end the scripts of the agent before.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    from orionagent.agent import run  # noqa: PLC0415

    return run(request.paths, bool(request.options["--foreground"])) or DONE


def console(request: Request) -> int:
    """`orion console`: returns when the local backend has ended."""
    try:
        from orionagent.console.serve import serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("orionagent"):
            raise
        raise OrionError(
            f"cannot start the console: {error.name} is not installed; do pip install 'orion-agent[console]'"
        ) from None
    data = os.path.abspath(request.options["--data"] or default_console_data())
    if request.options["--listen"]:
        serve(request.options["--listen"], data)
    else:
        serve(data_dir=data)
    return DONE


def default_console_data() -> str:
    """Return the folder that `orion console` keeps its database in unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "orion-console")


def demo(_request: Request) -> int:
    """`orion demo`: returns when somebody has ended it."""
    from orionagent.demo import run  # noqa: PLC0415

    return run()


COMMANDS: tuple[tuple[str, Callable[[Request], int]], ...] = (
    ("setup", setup),
    ("status", status),
    ("log", log),
    ("logs", logs),
    ("script list", scriptcommands.script_list),
    ("script show", scriptcommands.script_show),
    ("script start", scriptcommands.script_turn),
    ("script stop", scriptcommands.script_turn),
    ("script restart", scriptcommands.script_turn),
    ("script add", scriptcommands.script_add),
    ("script set", scriptcommands.script_set),
    ("script remove", scriptcommands.script_remove),
    ("buffer flush", buffer_flush),
    ("ping", ping),
    ("reload", reload),
    ("doctor", doctor),
    ("version", version),
    ("completion", completion),
    ("daemon", daemon),
    ("console", console),
    ("demo", demo),
)
