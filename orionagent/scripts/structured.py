"""Owns the reading of JSON lines: level, message and the rest.

Knows nothing of streams or of other kinds of lines; it is pure.
"""

from typing import Any

import msgspec

from orionagent.scripts.levels import number_level, word_level
from orionagent.wire import Level

# A larger object stays text: as metadata it would be unreadable, and decoding it is somebody's CPU.
MAX_CHARS = 32 * 1024
MAX_KEYS = 100

LEVEL_KEYS = ("level", "severity", "levelname", "lvl", "log.level", "@l")
MESSAGE_KEYS = ("message", "msg", "@m")

_decoder = msgspec.json.Decoder()


class Structured(msgspec.Struct, frozen=True, kw_only=True):
    """What a JSON line says; `level` is None where it names none that is known."""

    message: str
    level: Level | None
    metadata: dict[str, Any] | None


def read_object(line: str) -> Structured | None:
    """Return the parts of a line that is one JSON object with a level or a message; None for any other line.

    Without a message of its own the whole line stays the message and only the level is taken from it. A level
    that is not known stays in the metadata.
    """
    if len(line) > MAX_CHARS:
        return None
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if not isinstance(found, dict) or len(found) > MAX_KEYS:
        return None
    level: Level | None = None
    for key in LEVEL_KEYS:
        if key in found:
            level = _read_level(found[key])
            if level is not None:
                level_key = key
                break
    for key in MESSAGE_KEYS:
        message = found.get(key)
        if isinstance(message, str):
            del found[key]
            if level is not None:
                del found[level_key]
            return Structured(message=message, level=level, metadata=found or None)
    return None if level is None else Structured(message=line, level=level, metadata=None)


def _read_level(value: object) -> Level | None:
    if isinstance(value, str):
        return number_level(int(value)) if value.isdecimal() and len(value) < 4 else word_level(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_level(value)
    return None
