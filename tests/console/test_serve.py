"""The console as a process: its token, its address, what survives a restart, how it ends."""

import os
import signal
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orionagent.console.serve import load_token, open_sockets, parse_listen
from orionagent.errors import OrionError
from tests.console.process import ConsoleProcess


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_a_restart_has_everything(root: Path, number: int) -> None:
    with ConsoleProcess(root) as console:
        console.post("/api/v1/agent/log", {"level": "info", "message": "kept"})
        token = console.token
        assert console.stop(number) == 0
    with ConsoleProcess(root) as console:
        assert console.token == token
        assert [entry["message"] for entry in console.get("/api/projects/local/logs")] == ["kept"]


def test_what_was_acknowledged_survives_a_kill(root: Path) -> None:
    with ConsoleProcess(root) as console:
        console.post("/api/v1/agent/log", {"level": "info", "message": "kept"})
        assert console.stop(signal.SIGKILL) == -signal.SIGKILL
    with ConsoleProcess(root) as console:
        assert [entry["message"] for entry in console.get("/api/projects/local/logs")] == ["kept"]


def test_only_loopback_can_reach_it_and_both_families_do(root: Path) -> None:
    with ConsoleProcess(root) as console:
        port = urlsplit(console.url).port
        assert port is not None
        assert console.url.startswith("http://127.0.0.1:")
        listening = Path("/proc/net/tcp").read_text(encoding="ascii")
        assert f" 0100007F:{port:04X} 00000000:0000 0A" in listening
        if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
            assert f"{port:04X} " in Path("/proc/net/tcp6").read_text(encoding="ascii")


def test_the_token_and_the_database_are_readable_by_their_owner_only(root: Path) -> None:
    with ConsoleProcess(root) as console:
        for name in ("token", "console.db"):
            assert stat.S_IMODE(os.stat(root / "data" / name).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(root / "data").st_mode) == 0o700
        assert console.token == (root / "data" / "token").read_text(encoding="ascii").strip()


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OrionError, match=f"cannot listen on 127.0.0.1:{port}: .*--listen"):
            open_sockets("127.0.0.1", port)


@pytest.mark.parametrize("text", ["3001", "host:", ":1", "h:99999", "h:x"])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(OrionError, match="host:port"):
        parse_listen(text)


def test_a_folder_that_cannot_be_used_is_named(root: Path) -> None:
    (root / "file").write_text("")
    with pytest.raises(OrionError, match=r"cannot use .*--data"):
        load_token(str(root / "file" / "below"))
