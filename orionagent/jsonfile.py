"""Owns JSON that people write: errors that say where, shapes that name the nearest key, changes that keep the rest.

Knows nothing of what the keys mean.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from orionagent.errors import ConfigError

T = TypeVar("T")

_PLACE = re.compile(r" - at `\$?(?P<place>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")


def parse(data: bytes, path: str) -> Any:
    """Return the value in a JSON file.

    Raises:
        ConfigError: it is not JSON, or an object has a key twice; names line and column where it can.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"cannot use {path}: line {line} is not UTF-8; save the file as UTF-8") from error
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"cannot use {path}: not JSON: {place}: {error.msg}; correct it there") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot use {path}: not JSON: {error}; correct it") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a number in JSON")


def dump(value: Any) -> bytes:
    """Return a value as all our files are laid out: two spaces, keys in their order, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def convert(value: Any, shape: type[T], where: str, *, structs: Iterable[type[msgspec.Struct]]) -> T:
    """Return a value from `parse` in its shape; `structs` are those whose keys may be meant by an unknown one.

    Raises:
        ConfigError: an unknown key (names the nearest), a missing one, a wrong type (names its path).
    """
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        inner = place["place"].lstrip(".") if place else ""
        spot = f"{where}: {inner}" if inner else where
        unknown = _UNKNOWN.search(text)
        if unknown is not None:
            hint = nearest(unknown["key"], [key for struct in structs for key in keys(struct)])
            raise ConfigError(f"cannot use {spot}: unknown key {unknown['key']!r}; {hint}") from error
        reason = (text[: place.start()] if place else text).replace("`", "")
        reason = reason.replace("Object missing required field", "missing key").replace("Expected", "expected")
        raise ConfigError(f"cannot use {spot}: {reason}; correct it") from error


def keys(struct: type[msgspec.Struct]) -> list[str]:
    """Return the keys of a struct in JSON, in their order."""
    return [field.encode_name for field in msgspec.structs.fields(struct)]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word: the known one that is meant, or all of them."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {names[near[0]]!r}?" if near else f"known are {', '.join(names.values())}"


def amend(before: Mapping[str, Any], struct: msgspec.Struct, always: Iterable[str] = ()) -> dict[str, Any]:
    """Return a struct as JSON in the words of `before`, the object that a person wrote.

    Its keys keep their order and, where they still say the same, their spelling; keys behind them are those of
    `always` and those that differ from their defaults. What is None is left out.
    """
    fields = {field.encode_name: getattr(struct, field.name) for field in msgspec.structs.fields(struct)}
    told = _plain(struct)  # without defaults
    found = {}
    for key, old in before.items():
        new = _plain(fields[key]) if key in fields else old
        if new is not None:
            found[key] = old if old == new and type(old) is type(new) else new
    for key in [*always, *told]:
        value = told.get(key, _plain(fields[key]))
        if key not in found and value is not None:
            found[key] = value
    return found


def _plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))
