"""Owns the command line's grammar: its text, how words are matched with it, what is said when they do not.

Must not know what any command does.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from docopt import DocoptExit, docopt

GRAMMAR = """\
Usage:
  orion setup --server [--api-url=<url>] [--token=<token>] [--project=<name>] [--no-browser] [--yes]
  orion setup --source [--name=<name>] [--command=<command>] [--token=<token>] [--project=<name>] [--user=<user>] \
[--no-auto-restart] [--no-capture] [--yes]
  orion status [--watch] [--json]
  orion log [--from=<source>] [--tag=<tag>]... [--meta=<json>] [--json] [--] <level> <message>
  orion logs [<name>] [--follow] [--lines=<n>] [--level=<level>] [--json]
  orion script list [--json]
  orion script show <name> [--json]
  orion script (start | stop | restart) (<name>... | --all) [--json]
  orion script add <name> <command> [--cwd=<path>] [--no-auto-restart] [--no-capture] [--user=<user>] \
[--env=<k=v>]... [--set=<field=value>]... [--json]
  orion script set <name> <field=value>... [--json]
  orion script remove <name> [--json]
  orion buffer flush [--json]
  orion (ping | reload | doctor | version) [--json]
  orion completion (bash | zsh | fish)
  orion daemon [--foreground]
  orion console [--listen=<address>] [--data=<dir>]
  orion demo
"""

SUMMARIES = {
    "setup": "connect this server, or the application in this folder, to a backend",
    "status": "the agent, its backend, this machine and the scripts",
    "log": "send one entry; everything after the level is the message",
    "logs": "the last lines of one script or of all",
    "script": "the managed applications",
    "script list": "every script and its state",
    "script show": "definition, processes and last lines of one script",
    "script start": "start scripts, also those that were given up",
    "script stop": "stop scripts with all their processes",
    "script restart": "stop and start scripts",
    "script add": "manage another application",
    "script set": "change fields of a script: maxRestarts=3 user=www-data; an empty value is the default",
    "script remove": "stop a script and forget it",
    "buffer": "what waits to be delivered",
    "buffer flush": "send what waits now instead of at the next attempt",
    "ping": "does the daemon answer",
    "reload": "take up config.json and scripts.json anew",
    "doctor": "look for what is wrong with this installation, and say what to do",
    "version": "of this command, and of the daemon where that is another one",
    "completion": "print completions for a shell",
    "daemon": "run the agent itself (systemd does this)",
    "console": "run a local backend with a web page",
    "demo": "agent, console and two sample applications in a temporary folder",
}

OPTION_SUMMARIES = {
    "--server": "set up this server, once per machine",
    "--source": "set up the application in the current folder",
    "--api-url": "the backend's address",
    "--token": "an API token; - reads it from standard input, hidden; ORION_TOKEN works too",
    "--project": "the project, created where there is none of this name",
    "--no-browser": "print the login page's address only",
    "--yes": "ask nothing, take every default",
    "--name": "the source's and the script's name",
    "--command": "the start command",
    "--watch": "show it again every two seconds",
    "--json": "one JSON value a line on standard output",
    "--from": "the source that the entry belongs to",
    "--tag": "a tag of the entry; may be repeated",
    "--meta": "a JSON object that goes with the entry",
    "--follow": "go on with what comes, until Ctrl-C",
    "--lines": "how many lines, 50 unless told, at most 1000",
    "--level": "this level and above",
    "--all": "every script",
    "--cwd": "the working directory, the current folder unless told",
    "--no-auto-restart": "leave it alone when it crashes",
    "--no-capture": "do not send its output",
    "--user": "the user to run as",
    "--env": "a variable of its environment; may be repeated",
    "--set": "any other field; may be repeated",
    "--foreground": "log to the terminal, not to a file",
    "--listen": "host and port, 127.0.0.1:3001 unless told",
    "--data": "the folder of its database",
}

HELP = """\
Orion Agent: metrics, supervision and logs of one Linux server.

{grammar}
What they do:
{summaries}
Every command takes --json where shown: one JSON value a line on standard output.
ORION_ROOT=<dir> moves every file below that folder.
Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon is not running, 4 not permitted.
"""

LEVELS = ("trace", "verbose", "debug", "info", "warn", "error", "fatal")


class UsageError(Exception):
    """The words do not fit the grammar; the text says which and what was probably meant."""


def help_text() -> str:
    """Return what `orion --help` prints."""
    summaries = "".join(f"  {name:<15} {summary}\n" for name, summary in SUMMARIES.items())
    return HELP.format(grammar=GRAMMAR, summaries=summaries)


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Match the words behind `orion` with the grammar and return docopt's mapping.

    Raises:
        UsageError: they do not fit, or name no level.
    """
    words = settle_log(arguments)
    try:
        found = dict(docopt(GRAMMAR, words, False))
    except DocoptExit:
        raise UsageError(explain(arguments)) from None
    for level in (found["<level>"] if found["log"] else None, found["--level"]):
        if level is not None and level not in LEVELS:
            raise UsageError(f"unknown level {level!r}{nearest(level, LEVELS)}; levels are {', '.join(LEVELS)}")
    return found


def wants_help(arguments: Sequence[str]) -> bool:
    """Tell whether the words ask for help (a log message that says --help does not)."""
    for word in settle_log(arguments):
        if word == "--":
            return False
        if word in ("-h", "--help"):
            return True
    return False


def settle_log(arguments: Sequence[str]) -> list[str]:
    """Fold what follows the level of `orion log` into one message that no option parser touches."""
    words = list(arguments)
    if words[:1] != ["log"]:
        return words
    position = 1
    while position < len(words) and words[position].startswith("-") and words[position] != "--":
        word = words[position]
        takes_value = any(option.startswith(word) for option in ("--from", "--tag", "--meta"))
        position += 2 if takes_value else 1
    options, rest = words[1:position], words[position:]
    if rest[:1] == ["--"]:
        del rest[0]
    if len(rest) < 2:
        return words
    level, *message = rest
    if message[0] == "--" and len(message) > 1:
        del message[0]
    return ["log", *options, "--", level, " ".join(message)]


class Line(NamedTuple):
    """One line of the grammar: its command words (alternatives each), its options, its other parts.

    `mode` is the option that the line cannot do without and that tells it from others of the same words.
    """

    text: str
    words: tuple[tuple[str, ...], ...]
    options: tuple[tuple[str, str | None], ...]
    arguments: tuple[str, ...]
    mode: str | None = None

    def fits(self, words: Sequence[str]) -> bool:
        """Tell whether these command words may start this line."""
        return all(word in several for word, several in zip(words, self.words, strict=False))


def grammar_lines() -> list[Line]:
    """Return the grammar taken apart."""
    return [read_line(line.strip()) for line in GRAMMAR.splitlines()[1:]]


def read_line(text: str) -> Line:
    """Take one line of the grammar apart."""
    words = []
    for part in re.findall(r"\([a-z |]+\)|\S+", text)[1:]:
        if not re.fullmatch(r"\([a-z |]+\)|[a-z]+", part):
            break
        words.append(tuple(part.strip("()").replace("|", " ").split()))
    options = tuple((name, value or None) for name, value in re.findall(r"(--[a-z-]+)(?:=(<[^>]+>))?", text))
    arguments = tuple(re.findall(r"(?<![=\w])<[^>]+>", text))
    mode = re.match(r"orion [a-z ]*(--[a-z-]+)", text)
    return Line(text, tuple(words), options, arguments, mode[1] if mode else None)


def commands() -> list[str]:
    """Return every first word of the grammar, in its order."""
    return list(dict.fromkeys(word for line in grammar_lines() for word in line.words[0]))


def subcommands(command: str) -> list[str]:
    """Return the second words that a command has, none for most."""
    lines = [line for line in grammar_lines() if line.fits([command]) and len(line.words) > 1]
    return list(dict.fromkeys(word for line in lines for word in line.words[1]))


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ` (did you mean 'x'?)` for the known word that resembles `word`, else nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only those who mistype wait for it

    found = get_close_matches(word, known, 1, 0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


def explain(arguments: Sequence[str]) -> str:
    """Say why words do not fit the grammar: the wrong word, its nearest neighbour, the command's usage."""
    words = [word for word in arguments if not word.startswith("-")]
    everything = "orion --help shows every command"
    if not words:
        return f"which command? {', '.join(commands())}; {everything}"
    if words[0] not in commands():
        return f"no command {words[0]!r}{nearest(words[0], commands())}; {everything}"
    seconds = subcommands(words[0])
    if seconds and len(words) == 1:
        return f"{words[0]} what? {', '.join(seconds)}; {everything}"
    if seconds and words[1] not in seconds:
        return f"no command '{words[0]} {words[1]}'{nearest(words[1], seconds)}; {everything}"
    if list(arguments) == ["setup"]:
        return "set up what? --server, this machine, once; --source, the application in this folder"
    lines = [line for line in grammar_lines() if line.fits(words)]
    known = [name for line in lines for name, _ in line.options]
    usage = "usage:\n" + "\n".join(line.text for line in lines)
    for word in arguments:
        name = word.split("=")[0]
        if name.startswith("-") and name != "--" and not any(option.startswith(name) for option in known):
            return f"unknown option {name}{nearest(name, known)}\n{usage}"
    if words[:2] == ["script", "add"] and len(words) > 4:
        command = " ".join(words[3:])
        return f'put the command in quotes: orion script add {words[2]} "{command}"\n{usage}'
    return usage
