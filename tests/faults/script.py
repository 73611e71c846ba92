"""Owns what the faulty backend shall do wrong, and what it has received.

Knows nothing of sockets: `Script.decide` says what to do with a request, the server does it.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from tests.faults.ledger import Ledger

Act = Literal[
    "reset-on-accept",
    "hang-before-reading",
    "hang-after-reading",
    "reset-mid-body",
    "close-mid-body",
    "drop-answer",
    "truncate-answer",
    "status",
    "redirect",
    "drip",
    "garbage",
    "delay",
    "flood",
]

BEFORE_READING = ("hang-before-reading", "reset-mid-body", "close-mid-body")


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to do wrong, `times` requests long (0: until cleared), to requests whose path ends in `path`.

    `stored` says whether the request's content counts as received nevertheless: a backend can take data and
    fail to say so. drop-answer and truncate-answer always store.
    """

    do: Act
    path: str = ""
    times: int = 1
    seconds: float = 3600.0
    status: int = 503
    headers: Mapping[str, str] = {}
    body: str = ""
    retry_after_date_s: float | None = None
    location: str = ""
    after_bytes: int = 100
    stored: bool = False


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the backend is for good: its limits, the tokens it takes, the routes it has, what it answers."""

    max_bytes: int | None = None
    poison: str | None = None
    tokens: Sequence[str] | None = None
    forbidden_tokens: Sequence[str] = ()
    missing_routes: Sequence[str] = ()
    missing_status: int = 404
    heartbeat_answer: Any = None
    commands: Sequence[Any] = ()
    clock_skew_s: float = 0.0
    keep_alive: bool = True


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it arrived. `headers` have lower-case names; `outcome` is the fault's name or the status."""

    method: str
    path: str
    headers: Mapping[str, str]
    body_bytes: int
    connection: int
    at_s: float
    outcome: str


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What the backend has. `entries` are unique by (instance, seq), in order of first arrival."""

    requests: Sequence[Request]
    entries: Sequence[Mapping[str, Any]]
    instances: Sequence[str]
    duplicates: int
    heartbeats: Sequence[Any]
    alerts: Sequence[Any]
    acknowledged: Sequence[Any]
    connections: int
    failed_handshakes: int


class Script:
    """The faults still to come and everything received. Sole writer of both; every method locks.

    With a `ledger` batches of entries go there instead of into memory.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger
        self._changed = threading.Condition()
        self._faults: list[Fault] = []
        self._left: list[int] = []
        self.rules = Rules()
        self._generation = 0
        self._requests: list[Request] = []
        self._entries: list[Mapping[str, Any]] = []
        self._instances: list[str] = []
        self._keys: set[tuple[str, int]] = set()
        self._duplicates = 0
        self._heartbeats: list[Any] = []
        self._alerts: dict[str, Any] = {}
        self._acknowledged: list[Any] = []
        self._connections = 0
        self._failed_handshakes = 0

    def push(self, faults: Sequence[Fault]) -> None:
        """Add faults behind those still to come."""
        with self._changed:
            self._faults.extend(faults)
            self._left.extend(fault.times for fault in faults)

    def clear(self) -> None:
        """Forget the faults still to come and let go of every request that hangs."""
        with self._changed:
            self._faults.clear()
            self._left.clear()
            self._generation += 1
            self._changed.notify_all()

    def take(self, path: str | None) -> Fault | None:
        """Return the next fault for a request to `path` and count it; None: a connection that was accepted."""
        with self._changed:
            for index, fault in enumerate(self._faults):
                if (fault.do == "reset-on-accept") != (path is None):
                    continue
                if path is not None and not path.endswith(fault.path):
                    continue
                if self._left[index]:
                    self._left[index] -= 1
                    if not self._left[index]:
                        del self._faults[index], self._left[index]
                return fault
            return None

    def hold(self, seconds: float) -> None:
        """Block for `seconds` or until `clear`."""
        with self._changed:
            generation = self._generation
            self._changed.wait_for(lambda: self._generation != generation, seconds)

    def judge(self, request: Request, body: bytes, token: str) -> int:
        """Return the status that the rules give a whole request."""
        rules, path = self.rules, request.path.partition("?")[0]
        if rules.tokens is not None and token not in rules.tokens:
            return 401
        if token in rules.forbidden_tokens:
            return 403
        if any(path.endswith(route) for route in rules.missing_routes):
            return rules.missing_status
        if rules.max_bytes is not None and len(body) > rules.max_bytes:
            return 413
        if rules.poison is not None and rules.poison.encode() in body:
            return 400
        return 200

    def store(self, request: Request, body: bytes) -> None:
        """Keep a request's content, once per (instance, seq)."""
        path = request.path.partition("?")[0]
        instance = request.headers.get("orion-instance", "")
        with self._changed:
            if path.endswith("/agent/logs") and self._ledger is not None:
                self._ledger.add(instance, body)
            elif path.endswith("/agent/logs"):
                for line in body.splitlines():
                    entry = msgspec.json.decode(line)
                    self._keep(instance, entry["seq"], entry)
            elif path.endswith("/agent/log"):
                seq = int(request.headers.get("idempotency-key", "-0").rpartition("-")[2])
                self._keep(instance, seq, msgspec.json.decode(body))
            elif path.endswith("/agent/heartbeat"):
                self._heartbeats.append(msgspec.json.decode(body))
            elif path.endswith("/agent/alert"):
                alert = msgspec.json.decode(body)
                self._alerts.setdefault(request.headers.get("idempotency-key", str(len(self._alerts))), alert)
            elif path.endswith("/ack"):
                ok = msgspec.json.decode(body or b"{}").get("ok")
                self._acknowledged.append({"path": request.path, "ok": ok})

    def _keep(self, instance: str, seq: int, entry: Mapping[str, Any]) -> None:
        if (instance, seq) in self._keys:
            self._duplicates += 1
            return
        self._keys.add((instance, seq))
        self._entries.append(entry)
        self._instances.append(instance)

    def note(self, request: Request) -> None:
        """Write down that a request came, whatever became of it."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def note_connection(self, *, handshake_failed: bool = False) -> int:
        """Count a connection (or its failed TLS handshake); return how many there were."""
        with self._changed:
            if handshake_failed:
                self._failed_handshakes += 1
            else:
                self._connections += 1
            self._changed.notify_all()
            return self._connections

    def received(self, after: int = 0) -> Received:
        """Return what was received, of the entries those from index `after` on."""
        with self._changed:
            return Received(
                requests=list(self._requests),
                entries=self._entries[after:],
                instances=self._instances[after:],
                duplicates=self._duplicates,
                heartbeats=list(self._heartbeats),
                alerts=list(self._alerts.values()),
                acknowledged=list(self._acknowledged),
                connections=self._connections,
                failed_handshakes=self._failed_handshakes,
            )

    def wait_for(self, counts: Mapping[str, int], timeout_s: float) -> bool:
        """Block until at least so many of each were received; return whether they were before `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(self._count(name) >= count for name, count in counts.items()), timeout_s
            )

    def _count(self, name: str) -> int:
        match name:
            case "requests":
                return len(self._requests)
            case "entries":
                return len(self._entries)
            case "heartbeats":
                return len(self._heartbeats)
            case "alerts":
                return len(self._alerts)
            case "acknowledged":
                return len(self._acknowledged)
            case "duplicates":
                return self._duplicates
            case "connections":
                return self._connections
            case "failed_handshakes":
                return self._failed_handshakes
        raise KeyError(name)

    def make_request(
        self, method: str, path: str, headers: Mapping[str, str], body_bytes: int, connection: int, outcome: str
    ) -> Request:
        """Return the record of one request that came now."""
        return Request(
            method=method,
            path=path,
            headers=headers,
            body_bytes=body_bytes,
            connection=connection,
            at_s=time.monotonic(),
            outcome=outcome,
        )
