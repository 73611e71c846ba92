"""Owns the console as a process: token file, listening sockets, the upgrade to WebSocket, a clean end.

Knows nothing of routes or rows.
"""

import errno
import logging
import os
import secrets
import signal
import socket
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import gevent
from gevent import socket as cooperative
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from orionagent.console.accounts import Accounts
from orionagent.console.alarms import Alarms
from orionagent.console.commands import Commands
from orionagent.console.fleet import Fleet
from orionagent.console.live import Channel
from orionagent.console.logbook import Logbook
from orionagent.console.news import News, Services
from orionagent.console.reader import Reader
from orionagent.console.secret import Attempts
from orionagent.console.store import PRUNE_STEP, Store
from orionagent.console.tokens import Tokens
from orionagent.console.web import Console
from orionagent.errors import OrionError

log = logging.getLogger(__name__)

DEFAULT_LISTEN = "127.0.0.1:3001"
LIVE_PATH = "/api/ws"
HOUSEKEEPING_EVERY_S = 5.0
PRUNE_EVERY = 6
STOP_TIMEOUT_S = 0.5
"""For requests in flight; longer ones are cut off, and were not acknowledged."""
GOODBYE_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 1000
REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LOOPBACK = ("127.0.0.1", "localhost")


def serve(listen: str = DEFAULT_LISTEN, data_dir: str = ".orion-console", dashboard: str | None = None) -> None:
    """Run the console until SIGTERM or SIGINT; prints its address and token first. Blocks.

    `dashboard` is the origin of a dashboard served elsewhere, to which command lines are sent for sign-in.

    Raises:
        OrionError: the address is taken or malformed, or the folder cannot be used.
    """
    host, port = parse_listen(listen)
    token = load_token(data_dir)
    services = build(data_dir, token, dashboard)
    try:
        with_sockets(services, host, port, token)
    finally:
        services.reader.close()
        services.store.close()


def build(data_dir: str, token: str, dashboard: str | None) -> Services:
    """Open the store of this folder and put the parts over it together."""
    store = Store(os.path.join(data_dir, "console.db"))
    accounts, fleet, channel = Accounts(store), Fleet(store), Channel(store.now)
    reader = Reader(store.path)
    return Services(
        store=store,
        accounts=accounts,
        tokens=Tokens(store, accounts, token),
        fleet=fleet,
        commands=Commands(store),
        logbook=Logbook(store, reader),
        reader=reader,
        alarms=Alarms(store),
        channel=channel,
        attempts=Attempts(),
        news=News(store, accounts, fleet, channel),
        dashboard=dashboard,
    )


def with_sockets(services: Services, host: str, port: int, token: str) -> None:
    """Listen, announce, keep house until a signal comes, stop."""
    stopping = Event()
    watchers = [gevent.signal_handler(number, stopping.set) for number in (signal.SIGTERM, signal.SIGINT)]
    sockets = open_sockets(host, port)
    application, connections = Console(services), Pool(MAX_CONNECTIONS)
    shared = {"orion.channel": services.channel}
    servers = [
        WSGIServer(
            opened,
            application,
            spawn=connections,
            handler_class=LiveHandler,
            log=None,
            error_log=log,
            environ=shared,
        )
        for opened in sockets
    ]
    try:
        for server in servers:
            server.start()
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{sockets[0].getsockname()[1]}"
        sys.stdout.write(f"orion console at {address}\ntoken: {token}\nopen {address}/#token={token}\n")
        sys.stdout.write(f"everything is kept in {os.path.dirname(services.store.path)}; Ctrl-C ends the console\n")
        sys.stdout.flush()
        keep_house(services, stopping)
    finally:
        services.channel.close(GOODBYE_TIMEOUT_S)
        for server in servers:
            server.stop(timeout=STOP_TIMEOUT_S)
        for watcher in watchers:
            watcher.cancel()


def keep_house(services: Services, stopping: Event) -> None:
    """Fail overdue commands, tell of servers gone silent, delete what is too old; until `stopping`."""
    rounds = 0
    while not stopping.wait(HOUSEKEEPING_EVERY_S):
        rounds += 1
        try:
            for row in services.commands.overdue():
                settled = services.commands.settle(row["project_id"], row["id"], None, ok=False)
                if settled is not None:
                    services.news.command(settled)
            services.news.changed_servers()
            if rounds % PRUNE_EVERY == 0:
                while services.store.prune() >= PRUNE_STEP:
                    gevent.sleep(0)
        except Exception:
            # One failed round (a full disk) must not end the console, which may still show what it has.
            log.exception("housekeeping failed")


# -- sockets ----------------------------------------------------------------------------------------------


def parse_listen(text: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port"; port 0 lets the system choose.

    Raises:
        OrionError: it is neither.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise OrionError(f"cannot listen on {text!r}: write it as host:port, for example {DEFAULT_LISTEN}")
    return host, int(port)


def open_sockets(host: str, port: int) -> list[Any]:
    """Listen on the address; for IPv4 loopback on ::1 too where it is free, since clients say "localhost".

    Raises:
        OrionError: the address cannot be had.
    """
    sockets = []
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sockets.append(_listen(family, "127.0.0.1" if host == "localhost" else host, port))
    except OSError as error:
        raise OrionError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; {_remedy(error, host, port)}"
        ) from error
    if host in LOOPBACK:
        try:
            sockets.append(_listen(socket.AF_INET6, "::1", sockets[0].getsockname()[1]))
        except OSError as error:
            log.info("not listening on ::1: %s", error)
    return sockets


def _remedy(error: OSError, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    match error.errno:
        case errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 0
            return f"perhaps another console runs there; end it, or take another port: --listen={shown}:{other}"
        case errno.EACCES:
            return f"ports below 1024 are for root; take another: --listen={shown}:{port + 8000}"
        case _:
            return f"choose another with --listen, for example --listen={DEFAULT_LISTEN}"


def _listen(family: int, host: str, port: int) -> Any:
    opened = cooperative.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # pywsgi writes head and body apart; with Nagle's algorithm each answer would wait 40 ms. Inherited by
        # accepted connections: tcp(7).
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, port))
        opened.listen(256)
    except BaseException:
        opened.close()
        raise
    return opened


# -- live upgrade -----------------------------------------------------------------------------------------


class LiveHandler(WSGIHandler):
    """pywsgi's handler of one connection, which hands a good WebSocket ticket's socket to the channel."""

    def run_application(self) -> None:
        """Answer one request, or become a live connection."""
        target = self.path or ""
        parts = urlsplit(target)
        if parts.path != LIVE_PATH or self.headers.get("Upgrade", "").lower() != "websocket":
            super().run_application()
            return
        assert self.environ is not None
        channel: Channel = self.environ["orion.channel"]
        project = channel.redeem(parse_qs(parts.query).get("ticket", [""])[0])
        self.connection_upgraded = self.close_connection = True
        if project is None:
            self.socket.sendall(REFUSAL)
        else:
            channel.serve(self.socket, target, list(self.headers.items()), project)
        self.status = "101"

    def log_request(self) -> None:
        """Keep no access log."""


# -- token ------------------------------------------------------------------------------------------------


def load_token(data_dir: str) -> str:
    """Return the console's token, made at the first start and kept with mode 0600.

    Raises:
        OrionError: the folder or the file cannot be used.
    """
    path = os.path.join(data_dir, "token")
    try:
        os.makedirs(data_dir, mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            with open(path, encoding="ascii") as file:
                token = file.read().strip()
            if token:
                return token
            raise OrionError(f"cannot use {path}: it is empty; delete it to get a new token") from None
        token = secrets.token_urlsafe(24)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OrionError(f"cannot use {data_dir}: {error.strerror}; choose another folder with --data") from error
    return token
