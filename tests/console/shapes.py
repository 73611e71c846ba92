"""Owns telling whether an answer has a shape: `{name: shape}`, `[shape]`, a type, or alternatives in a tuple.

What a shape does not name may be there or not: clients ignore it. A name that ends in `?` may be absent.
"""

import re
from typing import Any

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


class Iso:
    """Stands for a time as text, in UTC."""


class Words(tuple[str, ...]):
    """Stands for one of these words."""

    __slots__ = ()


def one_of(*words: str) -> Words:
    """Return the shape of a text that is one of these."""
    return Words(words)


def differs(value: Any, shape: Any, place: str = "$") -> str:
    """Return where and how `value` is not of this shape; nothing when it is."""
    if isinstance(shape, Words):
        return "" if value in shape else f"{place}: {value!r} is none of {', '.join(shape)}"
    if isinstance(shape, tuple):
        found = [differs(value, each, place) for each in shape]
        return "" if "" in found else " / ".join(found)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{place}: {value!r} is no object"
        for name, inner in shape.items():
            key = name.removesuffix("?")
            if key not in value:
                if key == name:
                    return f"{place}.{key} is missing"
            elif (wrong := differs(value[key], inner, f"{place}.{key}")) != "":
                return wrong
        return ""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place}: {value!r} is no array"
        wrongs = (differs(each, shape[0], f"{place}[{number}]") for number, each in enumerate(value))
        return next((wrong for wrong in wrongs if wrong), "")
    if shape is Iso:
        return "" if isinstance(value, str) and ISO.fullmatch(value) else f"{place}: {value!r} is no time"
    if shape is None:
        return "" if value is None else f"{place}: {value!r} is not null"
    if shape in (int, float):
        # A number, and never text or a truth value.
        fits = isinstance(value, int | float if shape is float else int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, shape)
    return "" if fits else f"{place}: {value!r} is no {shape.__name__}"
