"""Owns the quick answers to `log`, `status`, `version` and `ping`: a few milliseconds above the interpreter.

Must not know the grammar, nor import more than `posix`, `_socket` and `_json`: whatever is unusual (an
option, no daemon, an error reply) is left to `cli`, which answers the same commands in the same words.
"""

import posix

from orionagent import __build__, __version__

LEVELS = ("trace", "verbose", "debug", "info", "warn", "error", "fatal")
TIMEOUT_S = 10.0
INTERRUPTED = 130


class _Strict:
    """What `_json`'s scanner wants to know; the values are those of `json.JSONDecoder()`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner asks for this attribute


def answer(arguments: list[str]) -> None:
    """Answer and leave the process by `posix._exit`, or return with nothing done.

    Blocks for at most `TIMEOUT_S` per read; for the answer to `log` as long as the daemon lives, like `cli`.
    """
    try:
        text = find_answer(arguments)
        if text is None:
            return
        write_all(1, text)
    except (OSError, ValueError, StopIteration):
        return
    except KeyboardInterrupt:
        posix._exit(INTERRUPTED)
    posix._exit(0)


def find_answer(arguments: list[str]) -> str | None:
    """Return what a successful call prints, or None where the docopt path must decide.

    Raises:
        OSError, ValueError, StopIteration: no daemon, or no sense in its reply.
    """
    match arguments:
        case ["log", level, first, *_] if level in LEVELS and first != "--":
            message = " ".join(arguments[2:])
            reply = exchange(f'{{"cmd":"log","level":"{level}","message":{quote(message)}}}\n', once=True)
            return "" if reply.get("ok") is True else None
        case ["status"]:
            color, columns = terminal()
            wanted = f'"render":true,"color":{"true" if color else "false"},"columns":{columns}'
            text = data_of(exchange(f'{{"cmd":"status",{wanted}}}\n')).get("text")
            return text if isinstance(text, str) else None
        case ["ping"]:
            data = data_of(exchange('{"cmd":"ping"}\n'))
            return f"pong (orion-agent {data['version']})\n" if data.get("version") else None
        case ["version"]:
            try:
                data = data_of(exchange('{"cmd":"version"}\n'))
            except OSError:
                return version_text()
            return version_text() if data.get("version") == __version__ else None
    return None


def version_text() -> str:
    """Return this program's version and, where it is packaged, how it was built: one line each."""
    return f"orion-agent {__version__}\n" + (f"{__build__}\n" if __build__ else "")


def write_all(descriptor: int, text: str) -> None:
    """Write `text` whole, as UTF-8 whatever the locale; blocks while the reader does. Raises OSError."""
    data = text.encode("utf-8", "replace")
    while data:
        data = data[posix.write(descriptor, data) :]


def data_of(reply: dict[str, object]) -> dict[str, object]:
    """Return a successful reply's data, an empty mapping otherwise."""
    data = reply.get("data")
    return data if reply.get("ok") is True and isinstance(data, dict) else {}


def quote(text: str) -> str:
    """Return `text` as a JSON string; undecodable bytes of the command line become U+FFFD."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    from _json import encode_basestring_ascii  # noqa: PLC0415

    return encode_basestring_ascii(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def terminal() -> tuple[bool, int]:
    """Return whether standard output wants colour, and its width (0 where it is no terminal)."""
    if not posix.isatty(1):
        return False, 0
    plain = posix.environ.get(b"NO_COLOR") or posix.environ.get(b"TERM", b"dumb") == b"dumb"
    return not plain, posix.get_terminal_size(1).columns


def socket_path() -> bytes:
    """Return the daemon's socket below ORION_ROOT.

    Raises:
        ValueError: the root needs a closer look (relative, or with dots in it).
    """
    root = posix.environ.get(b"ORION_ROOT") or b"/"
    if not root.startswith(b"/") or b"/." in root:
        raise ValueError(root)
    return root.rstrip(b"/") + b"/run/orion/agent.sock"


def exchange(request: str, *, once: bool = False) -> dict[str, object]:
    """Send one request line and return the daemon's reply.

    `once`: no reply is too late, for the request would be sent again, and carried out again, if we gave it up.

    Raises:
        OSError: no daemon, or none that answers in time.
        ValueError, StopIteration: the reply is no JSON object.
    """
    import _socket  # noqa: PLC0415

    path = socket_path()
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        connection.sendall(request.encode())
        if once:
            connection.settimeout(None)
        line = b""
        while not line.endswith(b"\n"):
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionResetError
            line += chunk
    finally:
        connection.close()
    if line.startswith(b'{"ok":true,"data":{"seq":'):
        return {"ok": True}
    from _json import make_scanner  # noqa: PLC0415

    reply, _ = make_scanner(_Strict)(line.decode(), 0)  # type: ignore[arg-type]
    if not isinstance(reply, dict):
        raise ValueError(line)
    return reply
