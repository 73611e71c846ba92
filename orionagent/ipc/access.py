"""Owns who may do what: access levels, commands as the server sees them, and the rate limit per user.

Must not know sockets, nor what a command does.
"""

import difflib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from orionagent.errors import BadRequest, Busy


class Access(IntEnum):
    """What a caller may do; each level includes those before it."""

    EVERYONE = 0
    OPERATOR = 1
    OWNER = 2


NEEDS = {
    Access.OPERATOR: "root or a member of the group orion",
    Access.OWNER: "root",
}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    uid: int
    access: Access


class Stream(msgspec.Struct, frozen=True):
    """What a handler returns to answer many times.

    `bursts` yields the items, an answer each, those at hand at once, and may block in between. It is closed when the
    caller has gone. `on_close` then gives back what the items come from, also when nobody ever asked for one: a
    generator that was not started runs no `finally`.
    """

    bursts: Generator[Sequence[Any]]
    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Give back what the stream holds."""
        self.bursts.close()
        if self.on_close is not None:
            self.on_close()


class Command(msgspec.Struct, frozen=True):
    """A row of the command table.

    `params` is the struct that the request's fields must fit, its field order that of positional parameters; None
    gives the handler a plain mapping. `handler(params, caller)` returns the reply's data or a `Stream`, may block, and
    raises OrionError to refuse. `limited` counts against the caller's rate unless it may operate the agent.
    """

    name: str
    access: Access
    params: type[msgspec.Struct] | None
    handler: Callable[[Any, Caller], Any]
    limited: bool = False


def access_of(uid: int, groups: frozenset[int], *, owner_uid: int, operators: int | None) -> Access:
    """Return what a peer may do; `operators` is the id of the group orion, None where there is none."""
    if uid in (0, owner_uid):
        return Access.OWNER
    return Access.OPERATOR if operators is not None and operators in groups else Access.EVERYONE


def read_params(command: Command, values: Mapping[str, Any] | Sequence[Any]) -> Any:
    """Return the request's fields as the command's struct.

    Raises:
        BadRequest: a field is unknown (the nearest is named), missing or malformed, or there are too many.
    """
    if command.params is None:
        if not isinstance(values, Mapping):
            raise BadRequest(f"cannot {command.name}: its params must come by name; send one map")
        return dict(values)
    known = msgspec.structs.fields(command.params)
    names = [field.encode_name for field in known]
    if not isinstance(values, Mapping):
        if len(values) > len(names):
            takes = ", ".join(names) or "none"
            raise BadRequest(f"cannot {command.name}: {len(values)} params given; it takes {takes}")
        values = dict(zip(names, values, strict=False))
    for name in values:
        if name not in names:
            hint = nearest(name, names) or f"; it takes {', '.join(names) or 'none'}"
            raise BadRequest(f"cannot {command.name}: unknown field {brief(name)}{hint}")
    for field in known:
        if field.required and field.encode_name not in values:
            raise BadRequest(f"cannot {command.name}: no {field.encode_name} given; add the field")
    try:
        return msgspec.convert(values, command.params)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise BadRequest(f"cannot {command.name}: {str(error).replace('$.', '')}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the most similar known name, nothing where none is similar."""
    near = difflib.get_close_matches(name[:100], list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def brief(text: str) -> str:
    """Return what somebody sent in quotes, bounded, on one line and harmless to a terminal."""
    return ascii(text if len(text) <= 100 else text[:97] + "...")


class RateLimit:
    """A bucket of `burst` calls per uid that fills again at `per_s`. Sole writer of its buckets."""

    def __init__(self, *, burst: int, per_s: float, most_uids: int = 1024) -> None:
        self._burst = burst
        self._per_s = per_s
        self._most_uids = most_uids
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, uid: int, now_s: float) -> None:
        """Count one call.

        Raises:
            Busy: the bucket is empty.
        """
        level, at_s = self._buckets.pop(uid, (float(self._burst), now_s))
        level = min(float(self._burst), level + (now_s - at_s) * self._per_s)
        if len(self._buckets) >= self._most_uids:
            # The longest unused bucket is the fullest.
            del self._buckets[next(iter(self._buckets))]
        self._buckets[uid] = (level - 1 if level >= 1 else level, now_s)
        if level < 1:
            raise Busy(f"cannot log: more than {self._per_s:g} entries a second from one user; slow down")
