"""A heartbeat through the real backend module to a real HTTP server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue

from orionagent.backend import Backend
from orionagent.config import AgentConfig
from orionagent.metrics.heartbeat import Heartbeat
from orionagent.metrics.sampler import Sampler
from orionagent.wire import RemoteCommand

DEADLINE_S = 10.0


class Site:
    """A backend as the early SDK knew it: 204 to a heartbeat, commands by a request of their own."""

    def __init__(self) -> None:
        self.requests: Queue[tuple[str, str, Any]] = Queue()
        self.server = WSGIServer(("127.0.0.1", 0), self.answer, log=None)
        self.server.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        data = environ["wsgi.input"].read()
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        self.requests.put((method, path + query, json.loads(data) if data else None))
        if method == "GET":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [b'{"commands": [{"id": 9, "type": "stop", "source": "api", "created": "now"}]}']
        start_response("204 No Content", [])
        return []


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.server.stop()


def test_a_heartbeat_a_command_and_its_acknowledgement_travel_by_http(site: Site) -> None:
    backend = Backend(AgentConfig(token="secret", apiUrl=site.address), "web-1")
    commands: list[RemoteCommand] = []

    def take(command: RemoteCommand) -> bool:
        commands.append(command)
        return True

    heartbeat = Heartbeat(
        Sampler(),
        backend,
        hostname="web-1",
        boot_id="b",
        version="1.0.0",
        interval_ms=3_600_000,
        scripts=list,
        buffer=lambda: None,
        on_command=take,
        on_success=lambda: None,
    )
    heartbeat.start()
    method, path, body = site.requests.get(timeout=DEADLINE_S)
    assert (method, path, body["hostname"]) == ("POST", "/api/v1/agent/heartbeat", "web-1")
    assert site.requests.get(timeout=DEADLINE_S)[:2] == ("GET", "/api/v1/agent/commands?hostname=web-1")
    assert site.requests.get(timeout=DEADLINE_S) == (
        "POST",
        "/api/v1/agent/commands/9/ack?hostname=web-1",
        {"ok": True},
    )
    assert commands == [RemoteCommand(id=9, type="stop", source="api")]
    heartbeat.stop()
    assert site.requests.get(timeout=DEADLINE_S)[2]["stopping"] is True
    backend.close()
