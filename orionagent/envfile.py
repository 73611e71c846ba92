"""Owns the reading of environment files: KEY=VALUE lines, as people write them for dotenv, Docker and systemd.

Knows nothing of what the variables are for; never repeats a value in an error, it may be a secret.
"""

import re

from orionagent.errors import ConfigError
from orionagent.files import read_guarded

_BLANK = re.compile(r"[ \t]*(#[^\n]*)?(\n|\Z)")
_KEY = re.compile(r"[ \t]*(export[ \t]+)?(?P<key>[A-Za-z_][A-Za-z0-9_.]*)[ \t]*=")
_SINGLE = re.compile(r"'(?P<text>[^']*)'")
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN = re.compile(r"(?P<text>[^\n]*?)(?=[ \t]*([ \t]#[^\n]*)?(\n|\Z))")
_SPACE = re.compile(r"[ \t]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`", "\n": ""}


def read_env_file(path: str) -> dict[str, str]:
    r"""Read an environment file: blank lines, # comments, `export `, quotes; nothing is expanded.

    Single quotes keep everything, double quotes know \n, \t, \r, \", \\ and \$; both may span lines. Without
    quotes a # behind white space begins a comment. The last of two equal keys counts.

    Raises:
        ConfigError: there is no such file, it cannot be read, or a line is none of this (names it).
    """
    data = read_guarded(path)
    if data is None:
        raise ConfigError(f"cannot read the environment file {path}: no such file; make it or change envFile")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"cannot use the environment file {path}, line {line}: not UTF-8") from error
    if "\0" in text:
        raise ConfigError(f"cannot use the environment file {path}: it holds NUL characters")
    return _parse(text, path)


def _parse(text: str, path: str) -> dict[str, str]:
    found = {}
    at = 0
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = blank.end()
            continue
        key = _KEY.match(text, at)
        value = _value(text, key.end()) if key is not None else None
        end = _BLANK.match(text, value[1]) if value is not None else None
        if key is None or value is None or end is None:
            line = text.count("\n", 0, at) + 1
            raise ConfigError(f"cannot use the environment file {path}, line {line}: write KEY=VALUE or KEY='VALUE'")
        found[key["key"]] = value[0]
        at = end.end()
    return found


def _value(text: str, at: int) -> tuple[str, int] | None:
    """Return the value that begins at `at` and where it ends, None for a quote without its other half."""
    space = _SPACE.match(text, at)
    begin = space.end() if space is not None else at
    quote = text[begin : begin + 1]
    if quote == "#" and begin > at:
        return "", at
    match = (_SINGLE if quote == "'" else _DOUBLE if quote == '"' else _PLAIN).match(text, begin)
    if match is None:
        return None
    if quote == '"':
        return _ESCAPE.sub(lambda e: _ESCAPED.get(e[1], e[0]), match["text"]), match.end()
    return match["text"], match.end()
