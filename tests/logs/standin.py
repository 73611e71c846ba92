"""A backend in this process, for what only timing and judgement decide; the wire is tried in tests/faults."""

import json
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from orionagent.errors import BackendError, Unsupported

Answer = BackendError | float | None


class StandIn:
    """Takes what it is given; `answer` may return an error to raise, or seconds to take.

    Everything delivered is kept in order: entries with their token and instance, alerts, and every call's name.
    """

    def __init__(self, answer: Callable[["Call"], Answer] | None = None) -> None:
        self.answer = answer or (lambda _: None)
        self.calls: list[Call] = []
        self.entries: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self._more = Event()

    def send_logs(
        self, body: bytes, *, token: str | None, instance: str, first_seq: int, last_seq: int, gzip: bool
    ) -> None:
        assert not gzip
        lines = [json.loads(line) for line in body.splitlines()]
        assert (lines[0]["seq"], lines[-1]["seq"]) == (first_seq, last_seq)
        self._take(Call("logs", token, lines, len(body)))
        self.entries += [{**line, "token": token, "instance": instance} for line in lines]

    def send_log(self, body: bytes, *, token: str | None, instance: str, seq: int) -> None:
        line = json.loads(body)
        self._take(Call("log", token, [line], len(body)))
        self.entries.append({**line, "seq": seq, "token": token, "instance": instance})

    def send_alert(self, body: bytes, *, token: str | None, alert_id: str) -> None:
        alert = json.loads(body)
        assert alert["id"] == alert_id
        self._take(Call("alert", token, [alert], len(body)))
        self.alerts.append(alert)

    def _take(self, call: "Call") -> None:
        self.calls.append(call)
        answer = self.answer(call)
        try:
            if isinstance(answer, float):
                gevent.sleep(answer)
            elif answer is not None:
                raise answer
        finally:
            self._more.set()

    def wait_until(self, reached: Callable[["StandIn"], bool], timeout_s: float = 20.0) -> None:
        """Wait until something holds, looking after every call; fail when it never does."""
        with gevent.Timeout(timeout_s, TimeoutError(f"calls: {self.calls[-20:]}")):
            while not reached(self):
                self._more.clear()
                self._more.wait(0.1)

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.entries]


class Call:
    """One request: its route, token, lines and size."""

    def __init__(self, route: str, token: str | None, lines: list[dict[str, Any]], size: int) -> None:
        self.route = route
        self.token = token
        self.lines = lines
        self.size = size

    def __repr__(self) -> str:
        return f"{self.route}({len(self.lines)})"


def knows_not(*routes: str) -> Callable[[Call], Answer]:
    """Return the answers of a backend without these routes."""
    return lambda call: Unsupported("no such route", status=404) if call.route in routes else None
