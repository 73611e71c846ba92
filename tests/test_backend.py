"""Calls to a backend that fails in every way end in time, with the right kind of error, and keep the token."""

import contextlib
import gzip
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from orionagent.backend import Backend
from orionagent.config import AgentConfig
from orionagent.errors import BackendError, ConfigError, Permanent, Refused, Retryable, TooLarge, Unsupported
from orionagent.wire import HeartbeatAnswer, RemoteCommand
from tests.faults.certificates import Mode
from tests.faults.fixtures import FaultyBackend

DEADLINE_S = 1.0
LONG_S = 20.0
LINES = b'{"seq":1,"message":"one"}\n{"seq":2,"message":"two"}\n'
MEGABYTE = b'{"seq":1,"message":"' + b"x" * 1_000_000 + b'"}\n'


@contextlib.contextmanager
def calling(config: AgentConfig, *, total_timeout_s: float = LONG_S) -> Iterator[Backend]:
    backend = Backend(config, "server-1", total_timeout_s=total_timeout_s)
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def backend(faulty: FaultyBackend) -> Iterator[Backend]:
    with calling(faulty.config()) as found:
        yield found


@pytest.fixture
def hasty(faulty: FaultyBackend) -> Iterator[Backend]:
    """Yield a backend that gives up after DEADLINE_S."""
    with calling(faulty.config(), total_timeout_s=DEADLINE_S) as found:
        yield found


def post_logs(backend: Backend, body: bytes = LINES, *, token: str = "test-token", gzip: bool = False) -> None:
    backend.send_logs(body, token=token, instance="i1", first_seq=1, last_seq=2, gzip=gzip)


def error_of(call: Callable[[], object]) -> BackendError:
    with pytest.raises(BackendError) as caught:
        call()
    assert "test-token" not in caught.value.message
    return caught.value


# What is sent


def test_log_lines_travel_unchanged_with_their_key_and_the_hosts_name(backend: Backend, faulty: FaultyBackend) -> None:
    post_logs(backend)
    found = faulty.received()
    assert faulty.messages() == ["one", "two"]
    assert found.instances == ["i1", "i1"]
    (request,) = found.requests
    assert request.path == "/api/v1/agent/logs"
    assert request.headers["authorization"] == "Bearer test-token"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["idempotency-key"] == "i1-1-2"
    assert request.headers["orion-hostname"] == "server-1"
    assert request.headers["orion-instance"] == "i1"


def test_compressed_lines_say_so(backend: Backend, faulty: FaultyBackend) -> None:
    post_logs(backend, gzip.compress(LINES), gzip=True)
    assert faulty.messages() == ["one", "two"]


def test_single_entries_alerts_and_commands_have_their_own_routes(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.rule(commands=[{"id": 7, "type": "restart", "source": "api", "new": "field"}])
    backend.send_log(b'{"message":"single"}', token="other", instance="i1", seq=9)
    backend.send_alert(b'{"id":"a1"}', token=None, alert_id="a1")
    backend.send_alert(b'{"id":"a1"}', token=None, alert_id="a1")
    assert backend.fetch_commands("server 1/ä") == (RemoteCommand(id=7, type="restart", source="api"),)
    backend.ack_command(7, True)
    found = faulty.received()
    assert faulty.messages() == ["single"]
    assert found.alerts == [{"id": "a1"}]
    assert found.acknowledged == [{"path": "/api/v1/agent/commands/7/ack?hostname=server-1", "ok": True}]
    assert [request.headers["authorization"] for request in found.requests[:2]] == ["Bearer other", "Bearer test-token"]
    assert found.requests[3].path == "/api/v1/agent/commands?hostname=server%201%2F%C3%A4"


def test_a_heartbeat_brings_back_what_the_backend_says(backend: Backend, faulty: FaultyBackend) -> None:
    assert backend.send_heartbeat(b'{"hostname":"x"}') == HeartbeatAnswer()
    faulty.rule(heartbeat_answer={"heartbeatInterval": 5000, "commands": [{"id": 1, "type": "stop"}]})
    answer = backend.send_heartbeat(b"{}")
    assert answer.heartbeatInterval == 5000
    assert list(answer.commands or ()) == [RemoteCommand(id=1, type="stop")]
    assert faulty.received().heartbeats == [{"hostname": "x"}, {}]


@pytest.mark.parametrize("said", ["plain text", [1, 2], {"commands": "none"}, None, {"heartbeatInterval": "x"}])
def test_a_senseless_answer_to_a_heartbeat_counts_as_none(
    backend: Backend, faulty: FaultyBackend, said: object
) -> None:
    faulty.rule(heartbeat_answer=said)
    assert backend.send_heartbeat(b"{}") == HeartbeatAnswer()


def test_one_connection_serves_many_calls_and_heartbeats_have_their_own(
    backend: Backend, faulty: FaultyBackend
) -> None:
    for _ in range(5):
        post_logs(backend)
        backend.send_heartbeat(b"{}")
    found = faulty.received()
    assert found.connections == 2
    assert len({request.connection for request in found.requests if request.path.endswith("logs")}) == 1


def test_a_heartbeat_passes_while_a_log_request_hangs(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("hang-after-reading", path="/agent/logs", stored=True)
    logs = gevent.spawn(post_logs, backend)
    faulty.wait_for(requests=1)
    backend.send_heartbeat(b"{}")
    assert not logs.ready()
    faulty.clear()
    logs.get(timeout=LONG_S)


def test_a_connection_that_the_backend_closed_meanwhile_is_replaced(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.rule(keep_alive=False)
    for _ in range(3):
        post_logs(backend)
    assert faulty.received().connections == 3


# Failures on the way (26)


def test_a_refused_connection_is_retryable_and_heals(backend: Backend, faulty: FaultyBackend) -> None:
    post_logs(backend)
    faulty.refuse()
    assert isinstance(error_of(lambda: post_logs(backend)), Retryable)
    assert "refused" in error_of(lambda: post_logs(backend)).message
    faulty.listen()
    post_logs(backend)
    assert faulty.received().duplicates == 2


@pytest.mark.parametrize("act", ["reset-on-accept", "reset-mid-body", "close-mid-body", "drop-answer", "garbage"])
def test_a_connection_that_breaks_is_retryable_and_the_next_call_passes(
    backend: Backend, faulty: FaultyBackend, act: str
) -> None:
    faulty.fail(act, body="\x16\x03\x01 not http at all\r\n\r\n")  # type: ignore[arg-type]
    assert isinstance(error_of(lambda: post_logs(backend, MEGABYTE)), Retryable)
    post_logs(backend, MEGABYTE)
    assert len(faulty.received().entries) == 1


@pytest.mark.parametrize("act", ["hang-before-reading", "hang-after-reading", "drip"])
def test_a_call_ends_at_its_deadline_whatever_the_backend_does(hasty: Backend, faulty: FaultyBackend, act: str) -> None:
    faulty.fail(act, seconds=0.3 if act == "drip" else 3600.0)  # type: ignore[arg-type]
    begun_s = time.monotonic()
    error = error_of(lambda: post_logs(hasty, MEGABYTE * 8))
    assert isinstance(error, Retryable)
    assert "no answer within 1 s" in error.message
    assert time.monotonic() - begun_s < LONG_S
    faulty.clear()
    post_logs(hasty)
    assert "two" in faulty.messages()


def test_a_lost_answer_leads_to_a_duplicate_that_the_key_tells_apart(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("drop-answer")
    error_of(lambda: post_logs(backend))
    post_logs(backend)
    found = faulty.received()
    assert faulty.messages() == ["one", "two"]
    assert found.duplicates == 2
    assert len({request.headers["idempotency-key"] for request in found.requests}) == 1


@pytest.mark.parametrize("act", ["truncate-answer", "flood"])
def test_a_2xx_is_an_acknowledgement_even_if_its_body_is_cut_or_endless(
    backend: Backend, faulty: FaultyBackend, act: str
) -> None:
    faulty.fail(act)  # type: ignore[arg-type]
    post_logs(backend)
    post_logs(backend)
    assert faulty.received().connections == 2


def test_a_host_that_has_no_address_is_retryable_and_named() -> None:
    with calling(AgentConfig(apiUrl="https://nowhere.invalid", token="test-token")) as backend:
        error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Retryable)
    assert "nowhere.invalid" in error.message


def test_a_call_that_is_killed_leaves_no_connection_behind(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("hang-after-reading")
    call = gevent.spawn(post_logs, backend)
    faulty.wait_for(requests=1)
    call.kill()
    faulty.clear()
    post_logs(backend)
    assert faulty.received().connections == 2


def test_an_enclosing_timeout_is_not_taken_for_the_calls_own(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("hang-after-reading")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
        post_logs(backend)


def test_a_caller_s_own_deadline_keeps_its_words(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("hang-after-reading")
    late = Retryable("cannot send the heartbeat: no answer within 0.2 s")
    with pytest.raises(Retryable) as caught, gevent.Timeout(0.2, late):
        backend.send_heartbeat(b"{}")
    assert caught.value.message == late.message


# Answers (27, 28, 29)


@pytest.mark.parametrize(
    ("how", "least_s", "most_s"),
    [
        ({"headers": {"Retry-After": "17"}}, 17.0, 17.0),
        ({"retry_after_date_s": 120.0}, 118.0, 122.0),
        ({"headers": {"Retry-After": "86400"}}, 3600.0, 3600.0),
    ],
)
def test_a_429_says_how_long_to_wait(
    backend: Backend, faulty: FaultyBackend, how: dict[str, object], least_s: float, most_s: float
) -> None:
    faulty.fail("status", status=429, **how)
    error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Retryable)
    assert error.retry_after_s is not None
    assert least_s <= error.retry_after_s <= most_s


def test_a_senseless_retry_after_is_left_to_the_callers_own_schedule(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("status", status=429, headers={"Retry-After": "in a while"})
    error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Retryable)
    assert error.retry_after_s is None


def test_a_storm_of_503_is_retryable_each_time_and_passes(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("status", status=503, times=10, body="<h1>busy</h1>")
    for _ in range(10):
        error = error_of(lambda: post_logs(backend))
        assert isinstance(error, Retryable)
        assert error.status == 503
    post_logs(backend)
    assert faulty.messages() == ["one", "two"]
    assert faulty.received().connections == 1


def test_a_token_that_is_not_accepted_is_refused_until_there_is_a_new_one(
    backend: Backend, faulty: FaultyBackend
) -> None:
    faulty.rule(tokens=["fresh", "weak"], forbidden_tokens=["weak"])
    assert error_of(lambda: post_logs(backend)).status == 401
    refused = error_of(lambda: post_logs(backend, token="weak"))
    assert isinstance(refused, Refused)
    assert refused.status == 403
    backend.reconfigure(faulty.config(token="fresh"))
    backend.send_heartbeat(b"{}")
    post_logs(backend, token="fresh")
    assert faulty.messages() == ["one", "two"]


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", ""])
def test_a_token_that_cannot_travel_is_refused_and_not_shown(faulty: FaultyBackend, token: str) -> None:
    with calling(faulty.config(token=token)) as backend, pytest.raises(Refused) as caught:
        backend.send_heartbeat(b"{}")
    assert not token or token not in caught.value.message
    assert faulty.received().connections == 0


def test_a_request_above_the_limit_is_too_large_and_a_smaller_one_passes(
    backend: Backend, faulty: FaultyBackend
) -> None:
    faulty.rule(max_bytes=10_000)
    assert isinstance(error_of(lambda: post_logs(backend, MEGABYTE)), TooLarge)
    post_logs(backend)
    assert faulty.messages() == ["one", "two"]


def test_a_poisoned_entry_is_permanent(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.rule(poison="two")
    error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Permanent)
    assert error.status == 400
    assert "refused with 400" in error.message


@pytest.mark.parametrize("status", [404, 405, 415])
def test_a_missing_route_is_unsupported(backend: Backend, faulty: FaultyBackend, status: int) -> None:
    faulty.rule(missing_routes=["/agent/logs"], missing_status=status)
    assert isinstance(error_of(lambda: post_logs(backend)), Unsupported)
    backend.send_log(b'{"message":"single"}', token="test-token", instance="i1", seq=1)
    assert faulty.messages() == ["single"]


# The clock (34)


def test_clock_skew_is_measured_by_every_answer(backend: Backend, faulty: FaultyBackend) -> None:
    assert backend.clock_skew_s is None
    faulty.rule(clock_skew_s=-3600.0)
    backend.send_heartbeat(b"{}")
    assert backend.clock_skew_s == pytest.approx(-3600.0, abs=60.0)
    faulty.rule(clock_skew_s=7200.0, tokens=[])
    error_of(lambda: post_logs(backend))
    assert backend.clock_skew_s == pytest.approx(7200.0, abs=60.0)


# Who may have the token (35)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_nothing_reaches_its_target(
    backend: Backend, faulty: FaultyBackend, start_faulty: Callable[..., FaultyBackend], status: int
) -> None:
    target = start_faulty()
    faulty.fail("redirect", status=status, location=f"{target.url}/api/v1/agent/logs")
    error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Refused)
    assert "redirect" in error.message
    assert target.received().connections == 0


def test_https_with_the_right_authority_passes(start_faulty: Callable[..., FaultyBackend]) -> None:
    server = start_faulty("good")
    with calling(server.config(caFile=server.ca_file)) as backend:
        post_logs(backend)
        post_logs(backend)
    assert server.messages() == ["one", "two"]
    assert server.received().connections == 1


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("self-signed", "self-signed"), ("expired", "expired"), ("wrong-name", "not valid for '127.0.0.1'")],
)
def test_a_bad_certificate_is_refused_with_its_reason_before_anything_is_sent(
    start_faulty: Callable[..., FaultyBackend], mode: Mode, reason: str
) -> None:
    server = start_faulty(mode)
    with calling(server.config(caFile=server.ca_file)) as backend:
        error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Refused)
    assert reason in error.message
    assert "nothing was sent" in error.message
    found = server.received()
    assert found.requests == []
    assert found.connections == 0


def test_an_authority_unknown_to_the_system_is_refused(start_faulty: Callable[..., FaultyBackend]) -> None:
    server = start_faulty("good")
    with calling(server.config()) as backend:
        assert isinstance(error_of(lambda: post_logs(backend)), Refused)
    assert server.received().requests == []


def test_https_spoken_to_a_plain_port_is_retryable(faulty: FaultyBackend) -> None:
    with calling(faulty.config(apiUrl=faulty.url.replace("http:", "https:"))) as backend:
        assert isinstance(error_of(lambda: post_logs(backend)), Retryable)


def test_a_missing_ca_file_is_named(start_faulty: Callable[..., FaultyBackend]) -> None:
    server = start_faulty("good")
    with calling(server.config(caFile="/no/such/ca.pem")) as backend:
        error = error_of(lambda: post_logs(backend))
    assert isinstance(error, Refused)
    assert "caFile" in error.message
    assert server.received().connections == 0


def test_a_password_in_netrc_does_not_replace_the_token(
    backend: Backend, faulty: FaultyBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = root / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\n", encoding="ascii")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    post_logs(backend)
    assert faulty.received().requests[0].headers["authorization"] == "Bearer test-token"


def test_the_environments_proxy_does_not_see_what_goes_to_this_machine(
    faulty: FaultyBackend, start_faulty: Callable[..., FaultyBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start_faulty()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    with calling(faulty.config()) as backend:
        post_logs(backend)
    assert faulty.messages() == ["one", "two"]
    assert proxy.received().connections == 0


def test_the_configured_proxy_is_used_and_wins_over_the_environments(
    start_faulty: Callable[..., FaultyBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, other = start_faulty(), start_faulty()
    monkeypatch.setenv("http_proxy", other.url)
    config = AgentConfig(apiUrl="http://backend.invalid", allowInsecure=True, token="test-token", proxy=proxy.url)
    with calling(config) as backend:
        post_logs(backend)
    assert proxy.requests()[0].path == "http://backend.invalid/api/v1/agent/logs"
    assert other.received().connections == 0


def test_https_goes_through_a_proxy_as_a_tunnel_that_does_not_see_the_token(
    start_faulty: Callable[..., FaultyBackend],
) -> None:
    proxy = start_faulty()
    proxy.fail("status", status=407, times=0)
    config = AgentConfig(apiUrl="https://backend.invalid", token="test-token", proxy=proxy.url)
    with calling(config) as backend:
        assert isinstance(error_of(lambda: post_logs(backend)), Retryable)
    (request,) = proxy.requests()
    assert request.method == "CONNECT"
    assert "authorization" not in request.headers


# Changing


def test_a_changed_address_is_used_from_the_next_call_on_and_a_bad_one_changes_nothing(
    backend: Backend, faulty: FaultyBackend, start_faulty: Callable[..., FaultyBackend]
) -> None:
    other = start_faulty()
    backend.reconfigure(other.config(), "renamed")
    post_logs(backend)
    with pytest.raises(ConfigError):
        backend.reconfigure(AgentConfig(apiUrl="http://example.com", token="t"))
    post_logs(backend)
    assert faulty.received().connections == 0
    assert [request.headers["orion-hostname"] for request in other.requests()] == ["renamed", "renamed"]


def test_a_reconfigured_backend_lets_a_call_under_way_finish(backend: Backend, faulty: FaultyBackend) -> None:
    faulty.fail("delay", seconds=0.2)
    call = gevent.spawn(post_logs, backend)
    faulty.wait_for(requests=1)
    backend.reconfigure(faulty.config())
    call.get(timeout=LONG_S)
    assert faulty.messages() == ["one", "two"]


def test_a_slow_call_does_not_hold_up_other_greenlets(backend: Backend, faulty: FaultyBackend) -> None:
    ticked = Event()
    faulty.fail("hang-after-reading")
    call = gevent.spawn(post_logs, backend)
    faulty.wait_for(requests=1)
    gevent.spawn(ticked.set)
    assert ticked.wait(LONG_S)
    call.kill()


def test_a_backend_that_listens_but_never_accepts_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        config = AgentConfig(apiUrl=f"http://127.0.0.1:{listening.getsockname()[1]}", token="test-token")
        with calling(config, total_timeout_s=0.5) as backend:
            assert isinstance(error_of(lambda: post_logs(backend)), Retryable)
