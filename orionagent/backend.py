"""Owns talking HTTP to the Orion backend: typed calls in, one of five kinds of failure out.

Knows nothing of buffers, retries or schedules. The only importer of requests.
"""

import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import gevent
import msgspec
import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from orionagent import __version__, answers
from orionagent.config import AgentConfig, api_base, is_loopback
from orionagent.errors import BackendError, Refused, Retryable
from orionagent.wire import HeartbeatAnswer, RemoteCommand

CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 30.0
ANSWER_LIMIT_BYTES = 1 << 20
NDJSON = "application/x-ndjson"
JSON = "application/json"
TOKEN = re.compile(r"[\x21-\x7e]+")

T = TypeVar("T")


class _Commands(msgspec.Struct, frozen=True, kw_only=True):
    commands: tuple[RemoteCommand, ...] = ()


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Lane:
    """The connections of one kind of traffic, kept open between calls.

    Requests go straight to the adapter, not through a `requests.Session`: no cookies, no redirects, nothing from
    .netrc in the token's place, and half the CPU time. What the environment says of proxies and certificates
    is looked up once.
    """

    def __init__(self, base: str, config: AgentConfig, timeout: tuple[float, float]) -> None:
        # No retries of the library's own: what is repeated, and when, is decided above us.
        self._adapter = HTTPAdapter(pool_connections=2, pool_maxsize=2, max_retries=0)
        self._timeout = timeout
        self._proxies = _proxies(base, config)
        self._verify: bool | str = (
            config.caFile or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        )

    def send(self, request: requests.PreparedRequest) -> requests.Response:
        """Send and return the answer's head; the body is read from its `raw`."""
        return self._adapter.send(
            request, stream=True, timeout=self._timeout, verify=self._verify, proxies=self._proxies
        )

    def close(self) -> None:
        """Close the idle connections; one in use closes when its call is over.

        Pool by pool: clearing their manager leaves each open until the last error that names it is collected.
        """
        for manager in (self._adapter.poolmanager, *self._adapter.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
        self._adapter.close()


class Backend:
    """Calls below one `apiUrl`. Heartbeats have connections of their own, so that logs cannot delay them.

    Every call blocks its greenlet at most `total_timeout_s`, whatever the backend does, and raises only
    Retryable, Refused, TooLarge, Unsupported or Permanent. Redirects are refused. A 2xx is an acknowledgement as
    soon as its status is there, whatever follows. `clock_skew_s` is the backend's clock minus ours as of
    the last answer, None before the first. Sole writer of its connections.
    """

    def __init__(
        self,
        config: AgentConfig,
        hostname: str,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock_skew_s: float | None = None
        self._hostname = hostname
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._wall_clock = wall_clock
        self._take(config)

    def __repr__(self) -> str:
        return f"Backend({self._base!r})"

    @property
    def base(self) -> str:
        """Return the address of all routes."""
        return self._base

    def _take(self, config: AgentConfig) -> None:
        base = api_base(config)
        timeout = (self._connect_timeout_s, self._total_timeout_s)
        self._lanes = {name: _Lane(base, config, timeout) for name in ("heartbeat", "logs")}
        self._base, self._config = base, config

    def reconfigure(self, config: AgentConfig, hostname: str | None = None) -> None:
        """Use another configuration from the next call on; calls under way end by the old one.

        Raises:
            ConfigError: the address is unusable; the old configuration stays in force.
        """
        old = self._lanes
        self._take(config)
        self._hostname = hostname or self._hostname
        for lane in old.values():
            lane.close()

    def close(self) -> None:
        """Close all connections."""
        for lane in self._lanes.values():
            lane.close()

    # Calls

    def send_heartbeat(self, body: bytes) -> HeartbeatAnswer:
        """POST a heartbeat; return what the backend has to say, which may be nothing."""
        answer = self._call("send the heartbeat", "heartbeat", "/agent/heartbeat", body, {"Content-Type": JSON})
        return _decode(answer, HeartbeatAnswer, HeartbeatAnswer())

    def send_logs(
        self, body: bytes, *, token: str | None, instance: str, first_seq: int, last_seq: int, gzip: bool
    ) -> None:
        """POST entry lines as NDJSON (`body` compressed already when `gzip`); returning is the acknowledgement."""
        headers = {
            "Content-Type": NDJSON,
            "Idempotency-Key": f"{instance}-{first_seq}-{last_seq}",
            "Orion-Instance": instance,
        }
        if gzip:
            headers["Content-Encoding"] = "gzip"
        self._call("send logs", "logs", "/agent/logs", body, headers, token=token)

    def send_log(self, body: bytes, *, token: str | None, instance: str, seq: int) -> None:
        """POST one entry, for backends that take no NDJSON."""
        headers = {"Content-Type": JSON, "Idempotency-Key": f"{instance}-{seq}", "Orion-Instance": instance}
        self._call("send a log entry", "logs", "/agent/log", body, headers, token=token)

    def send_alert(self, body: bytes, *, token: str | None, alert_id: str) -> None:
        """POST one crash alert."""
        headers = {"Content-Type": JSON, "Idempotency-Key": alert_id}
        self._call("send an alert", "logs", "/agent/alert", body, headers, token=token)

    def fetch_commands(self, hostname: str) -> tuple[RemoteCommand, ...]:
        """GET the commands that wait for this server."""
        route = f"/agent/commands?hostname={quote(hostname, safe='')}"
        return _decode(self._call("fetch commands", "heartbeat", route, None, {}), _Commands, _Commands()).commands

    def ack_command(self, command_id: int, ok: bool) -> None:
        """POST that a command was carried out (or could not be)."""
        route = f"/agent/commands/{command_id}/ack?hostname={quote(self._hostname, safe='')}"
        body = msgspec.json.encode({"ok": ok})
        self._call("acknowledge a command", "heartbeat", route, body, {"Content-Type": JSON})

    # The one way out

    def _call(
        self,
        what: str,
        lane: str,
        route: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        token: str | None = None,
    ) -> _Answer:
        """POST `body` (GET without one); return a 2xx, raise everything else."""
        call = f"cannot {what} to {self._base}"
        token = token or self._config.token
        if not token:
            raise Refused(f"{call}: there is no token; run: sudo orion setup --server")
        if not TOKEN.fullmatch(token):
            raise Refused(f"{call}: the token holds white space or unprintable characters; give it anew")
        answer = self._exchange(call, self._lanes[lane], self._prepare(self._base + route, body, headers, token))
        now_s = self._note_clock(answer)
        error = answers.failure(answer.status, answer.headers, answer.body, call=call, token=token, now_s=now_s)
        if error is not None:
            raise error
        return answer

    def ask(self, route: str, fields: object = None, *, token: str | None = None) -> tuple[int, bytes]:
        """Call a route for people, which is below /api rather than /api/v1: GET, or POST where there are fields.

        Returns status and body, whatever they are.

        Raises:
            Retryable: the backend could not be reached.
            Refused: its certificate is not trusted, or the token cannot be sent.
        """
        base = self._base.removesuffix("/v1")
        call = f"cannot reach {base}{route}"
        if token is not None and not TOKEN.fullmatch(token):
            raise Refused(f"{call}: the token holds white space or unprintable characters; give it anew")
        body = None if fields is None else msgspec.json.encode(fields)
        request = self._prepare(base + route, body, {"Content-Type": JSON}, token)
        answer = self._exchange(call, self._lanes["heartbeat"], request)
        self._note_clock(answer)
        return answer.status, answer.body

    def _note_clock(self, answer: _Answer) -> float:
        """Take the backend's clock from an answer; return ours."""
        now_s = self._wall_clock()
        skew_s = answers.clock_skew_s(answer.headers.get("Date"), now_s)
        if skew_s is not None:
            self.clock_skew_s = skew_s
        return now_s

    def _prepare(
        self, url: str, body: bytes | None, headers: Mapping[str, str], token: str | None
    ) -> requests.PreparedRequest:
        request = requests.PreparedRequest()
        request.method = "GET" if body is None else "POST"
        request.url = url
        request.body = body
        request.hooks = {}
        request.headers = CaseInsensitiveDict(
            {
                "User-Agent": f"orion-agent/{__version__}",
                "Accept": JSON,
                "Accept-Encoding": "identity",
                "Orion-Hostname": quote(self._hostname),
                **headers,
            }
        )
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            request.headers["Content-Length"] = str(len(body))
        return request

    def _exchange(self, call: str, lane: _Lane, request: requests.PreparedRequest) -> _Answer:
        """Send and read under one deadline: the library's own timeouts are per read, a slow drip escapes them."""
        response: requests.Response | None = None
        body = b""
        deadline = gevent.Timeout(self._total_timeout_s)
        deadline.start()
        try:
            response = lane.send(request)
            body = response.raw.read(ANSWER_LIMIT_BYTES, decode_content=True)
        except gevent.Timeout as error:
            if error is not deadline:
                raise
            if response is None:
                raise Retryable(f"{call}: no answer within {self._total_timeout_s:g} s") from None
        except BackendError:
            if response is None:
                raise  # the caller's own deadline, in the caller's words
        except Exception as error:
            if response is None:
                raise _translate(call, error) from error
            # The status is there; a body that breaks off changes nothing about it.
        finally:
            deadline.close()
            if response is not None:
                response.close()
        return _Answer(status=response.status_code, headers=response.headers, body=body)


def _proxies(base: str, config: AgentConfig) -> dict[str, str]:
    """Return the proxies by scheme. One of the environment is not for loopback: it would be sent the token."""
    if config.proxy:
        return {"http": config.proxy, "https": config.proxy}
    return {} if is_loopback(base) else requests.utils.get_environ_proxies(base)


def _translate(call: str, error: Exception) -> Retryable | Refused:
    """Return what a call that got no answer means."""
    cause = _innermost(error)
    match cause:
        case ssl.SSLCertVerificationError():
            return Refused(
                f"{call}: its certificate is not trusted: {cause.verify_message}; nothing was sent;"
                " correct it, or set caFile if an authority of your own signed it"
            )
        case OSError() if "TLS CA certificate bundle" in str(cause):
            return Refused(f"{call}: there is no such caFile; correct caFile")
        case OSError() if cause.strerror:
            return Retryable(f"{call}: {cause.strerror}")
        case _:
            return Retryable(f"{call}: {cause or type(cause).__name__}")


def _innermost(error: BaseException) -> BaseException:
    """Return the first cause below the layers that requests and urllib3 put around it."""
    for _ in range(10):
        candidates: tuple[Any, ...] = (*error.args, getattr(error, "reason", None), error.__cause__)
        inner = next((each for each in candidates if isinstance(each, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _decode(answer: _Answer, shape: type[T], otherwise: T) -> T:
    """Return a JSON answer in its shape. A 2xx is an acknowledgement whatever its body is."""
    if not answer.body or len(answer.body) >= ANSWER_LIMIT_BYTES:
        return otherwise
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return otherwise
