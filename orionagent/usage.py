"""Owns the command line's grammar: its text, how words are matched with it, what is said when they do not.

Must not know what any command does.
"""

from collections.abc import Sequence
from typing import Any

from docopt import DocoptExit, docopt

GRAMMAR = """\
Usage:
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
  orion (ping | reload | version) [--json]
  orion daemon [--foreground]
  orion console [--listen=<address>] [--data=<dir>]
  orion demo
"""

HELP = """\
Orion Agent: metrics, supervision and logs of one Linux server.

{grammar}
What they do:
  status            the agent, its backend, this machine and the scripts; --watch repeats it
  log               send one entry; everything after the level is the message
  logs              the last lines of one script or of all; --follow goes on
  script            the managed applications; `set` changes fields: maxRestarts=3 user=www-data
  buffer flush      send what waits now instead of at the next attempt
  ping, version     is the daemon there, and which one
  reload            take up config.json and scripts.json anew
  daemon            run the agent itself (systemd does this)
  console           a local backend with a web page
  demo              agent, console and two sample applications in a temporary folder

Every command takes --json where shown: one JSON value a line on standard output.
ORION_ROOT=<dir> moves every file below that folder.
Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon is not running, 4 not permitted.
"""

LEVELS = ("trace", "verbose", "debug", "info", "warn", "error", "fatal")


class UsageError(Exception):
    """The words do not fit the grammar; the text says which and what was probably meant."""


def help_text() -> str:
    """Return what `orion --help` prints."""
    return HELP.format(grammar=GRAMMAR)


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


def usage_lines(words: Sequence[str]) -> list[str]:
    """Return the grammar's lines for a command, or for one subcommand of `script`."""
    lines = [line for line in GRAMMAR.splitlines()[1:] if _fits(line, words[:1])]
    closer = [line for line in lines if _fits(line, words[:2])]
    return closer or lines


def _fits(line: str, words: Sequence[str]) -> bool:
    plain = line.replace("(", " ").replace(")", " ").replace("|", " ").split()
    named = plain[1:]
    first = named[: next((at for at, word in enumerate(named) if word[0] in "[<-"), len(named))]
    if named[0] == "script":
        return words[0] == "script" and all(word in first for word in words[1:])
    return bool(words) and words[0] in first


def commands() -> list[str]:
    """Return every first word of the grammar, in its order."""
    found: list[str] = []
    for line in GRAMMAR.splitlines()[1:]:
        plain = line.replace("(", " ").replace(")", " ").replace("|", " ").split()
        several = "(" in line.split("[")[0] and plain[1] != "script"
        found.extend(word for word in plain[1 : None if several else 2] if word[0] not in "[<-")
    return list(dict.fromkeys(found))


def options_of(lines: Sequence[str]) -> list[str]:
    """Return the long options that these grammar lines name."""
    names: list[str] = []
    for line in lines:
        for word in line.replace("[", " ").replace("]", " ").replace(")", " ").split():
            if word.startswith("--") and len(word) > 2:
                names.append(word.split("=")[0])
    return list(dict.fromkeys(names))


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
    scripts = ("list", "show", "start", "stop", "restart", "add", "set", "remove")
    if words[0] == "script" and (len(words) == 1 or words[1] not in scripts):
        if len(words) == 1:
            return f"script what? {', '.join(scripts)}; {everything}"
        return f"no command 'script {words[1]}'{nearest(words[1], scripts)}; {everything}"
    lines = usage_lines(words)
    known = options_of(lines)
    usage = "usage:\n" + "\n".join(line.strip() for line in lines)
    for word in arguments:
        name = word.split("=")[0]
        if name.startswith("-") and name != "--" and not any(option.startswith(name) for option in known):
            return f"unknown option {name}{nearest(name, known)}\n{usage}"
    if words[:2] == ["script", "add"] and len(words) > 4:
        command = " ".join(words[3:])
        return f'put the command in quotes: orion script add {words[2]} "{command}"\n{usage}'
    return usage
