"""Owns talking HTTP to the Orion backend: typed calls in, one of five kinds of failure out.

Knows nothing of buffers, retries or schedules. The only importer of requests.
"""

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import gevent
import msgspec
import requests
from requests.adapters import HTTPAdapter

from orionagent import __version__
from orionagent.config import AgentConfig, api_base
from orionagent.errors import Permanent, Refused, Retryable, TooLarge, Unsupported
from orionagent.wire import HeartbeatAnswer, RemoteCommand

CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 30.0
RETRY_AFTER_LIMIT_S = 3600.0
ANSWER_LIMIT_BYTES = 1 << 20
NDJSON = "application/x-ndjson"
JSON = "application/json"
TOKEN = re.compile(r"(?i)bearer\s+\S+")


class _Commands(msgspec.Struct, frozen=True, kw_only=True):
    commands: tuple[RemoteCommand, ...] = ()


class _BearerToken(requests.auth.AuthBase):
    """Sets the token as an `auth=` callable: without one, requests puts a password from .netrc in its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Backend:
    """Calls below one `apiUrl`. Heartbeats have connections of their own, so that logs cannot delay them.

    Every call blocks its greenlet at most `total_timeout_s` and raises only Retryable, Refused, TooLarge,
    Unsupported or Permanent. `clock_skew_s` is the backend's clock minus ours as of the last answer.
    """

    def __init__(
        self,
        config: AgentConfig,
        hostname: str,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self.clock_skew_s: float | None = None
        self._hostname = hostname
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._take(config)

    def __repr__(self) -> str:
        return f"Backend({self._base!r})"

    @property
    def base(self) -> str:
        """Return the address of all routes."""
        return self._base

    def _take(self, config: AgentConfig) -> None:
        self._config = config
        self._base = api_base(config)
        self._sessions = {"heartbeat": self._make_session(), "logs": self._make_session()}

    def _make_session(self) -> requests.Session:
        session = requests.Session()
        session.headers.update({"User-Agent": f"orion-agent/{__version__}", "Orion-Hostname": self._hostname})
        # One connection and no retries of the library's own: what is repeated, and when, is decided above us.
        adapter = HTTPAdapter(pool_connections=2, pool_maxsize=2, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        if self._config.proxy:
            session.proxies = {"http": self._config.proxy, "https": self._config.proxy}
        if self._config.caFile:
            session.verify = self._config.caFile
        # Proxies and certificates of the environment are looked up once, not at every request.
        settings = session.merge_environment_settings(self._base, {}, None, None, None)
        session.proxies = dict(settings["proxies"])
        session.verify = settings["verify"]
        session.trust_env = False
        return session

    def reconfigure(self, config: AgentConfig, hostname: str | None = None) -> None:
        """Use another configuration from the next call on."""
        old = self._sessions
        self._hostname = hostname or self._hostname
        self._take(config)
        for session in old.values():
            session.close()

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            session.close()

    # Calls

    def send_heartbeat(self, body: bytes) -> HeartbeatAnswer:
        """POST a heartbeat; return what the backend has to say, which may be nothing."""
        response = self._call("heartbeat", "POST", "/agent/heartbeat", body, {"Content-Type": JSON})
        answer: HeartbeatAnswer = _decode(response, HeartbeatAnswer, HeartbeatAnswer())
        return answer

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
        self._call("logs", "POST", "/agent/logs", body, headers, token=token)

    def send_log(self, body: bytes, *, token: str | None, instance: str, seq: int) -> None:
        """POST one entry, for backends that take no NDJSON."""
        headers = {"Content-Type": JSON, "Idempotency-Key": f"{instance}-{seq}", "Orion-Instance": instance}
        self._call("logs", "POST", "/agent/log", body, headers, token=token)

    def send_alert(self, body: bytes, *, token: str | None, alert_id: str) -> None:
        """POST one crash alert."""
        headers = {"Content-Type": JSON, "Idempotency-Key": alert_id}
        self._call("logs", "POST", "/agent/alert", body, headers, token=token)

    def fetch_commands(self, hostname: str) -> tuple[RemoteCommand, ...]:
        """GET the commands that wait for this server."""
        response = self._call("heartbeat", "GET", "/agent/commands", None, {}, params={"hostname": hostname})
        answer: _Commands = _decode(response, _Commands, _Commands())
        return answer.commands

    def ack_command(self, command_id: int, ok: bool) -> None:
        """POST that a command was carried out (or could not be)."""
        body = msgspec.json.encode({"ok": ok})
        path = f"/agent/commands/{command_id}/ack"
        self._call("heartbeat", "POST", path, body, {"Content-Type": JSON}, params={"hostname": self._hostname})

    # The one way out

    def _call(
        self,
        lane: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        token: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> requests.Response:
        token = token or self._config.token
        if not token:
            raise Refused("cannot send: no token; run `sudo orion setup --server`")
        deadline = gevent.Timeout(self._total_timeout_s)
        deadline.start()
        try:
            response = self._sessions[lane].request(
                method,
                self._base + path,
                params=params,
                data=body,
                headers=headers,
                auth=_BearerToken(token),
                timeout=(self._connect_timeout_s, self._total_timeout_s),
                allow_redirects=False,
            )
        except gevent.Timeout as error:
            if error is not deadline:
                raise
            raise Retryable(f"cannot send to {self._base}: no answer within {self._total_timeout_s:g} s") from None
        except requests.exceptions.SSLError as error:
            raise Retryable(f"cannot send to {self._base}: {_tls_reason(error)}; nothing was sent") from error
        except (requests.RequestException, OSError) as error:
            raise Retryable(f"cannot send to {self._base}: {_reason(error)}") from error
        finally:
            deadline.close()
        self._note_clock(response)
        self._judge(response, path)
        return response

    def _note_clock(self, response: requests.Response) -> None:
        try:
            theirs = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        except (TypeError, ValueError):
            return
        self.clock_skew_s = theirs - time.time()

    def _judge(self, response: requests.Response, path: str) -> None:
        """Return on 2xx, else raise what the status means."""
        status = response.status_code
        if 200 <= status < 300:
            return
        said = f"{self._base}{path} answers {status}{_excerpt(response)}"
        if 300 <= status < 400:
            # Following would turn the POST into a GET, and could carry the token elsewhere.
            raise Permanent(f"{said}: redirects are not followed; set apiUrl to the real address", status=status)
        if status in (401, 403):
            raise Refused(f"{said}: the token is not accepted; run `sudo orion setup --server`", status=status)
        if status in (408, 429) or status >= 500:
            raise Retryable(said, status=status, retry_after_s=_retry_after_s(response.headers.get("Retry-After")))
        if status == 413:
            raise TooLarge(said, status=status)
        if status in (404, 405, 415):
            raise Unsupported(said, status=status)
        raise Permanent(said, status=status)


def _retry_after_s(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, 0 to 3600; None when it says nothing sensible."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT_S)


def _decode(response: requests.Response, shape: Any, otherwise: Any) -> Any:
    """Return a JSON answer in its shape. A 2xx is an acknowledgement whatever its body is."""
    if not response.content or len(response.content) > ANSWER_LIMIT_BYTES:
        return otherwise
    try:
        return msgspec.json.decode(response.content, type=shape)
    except msgspec.MsgspecError:
        return otherwise


def _excerpt(response: requests.Response) -> str:
    text = " ".join(response.content[:200].decode("utf-8", "replace").split())
    return f" ({TOKEN.sub('Bearer ***', text)})" if text else ""


def _reason(error: BaseException) -> str:
    """Return the innermost cause in few words."""
    inner: Any = error
    while True:
        deeper = getattr(inner, "reason", None) or inner.__cause__ or inner.__context__
        if not isinstance(deeper, BaseException) or deeper is inner:
            break
        inner = deeper
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def _tls_reason(error: BaseException) -> str:
    return f"its TLS certificate is not trusted: {_reason(error)}; set caFile if it is your own authority's"
