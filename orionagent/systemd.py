"""Owns the conversation with systemd: notifications, watchdog, stored and inherited descriptors, journal.

Knows nothing of scripts, logs or greenlets; without systemd every call is a cheap no-op that says so.
"""

import array
import logging
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

LISTEN_FDS_START = 3
MAX_DESCRIPTORS_PER_MESSAGE = 200  # the kernel's SCM_MAX_FD is 253
MAX_NAME_BYTES = 255
SEND_TIMEOUT_S = 2.0
BARRIER_TIMEOUT_S = 5.0

# sd-daemon(3): the journal reads a line's priority from a "<N>" in front of it.
_PRIORITIES = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
)
_DEBUG_PRIORITY = "<7>"


class Notifier:
    """The sending end of sd_notify(3).

    `address` is what systemd put into NOTIFY_SOCKET, None where nobody listens. Every method returns whether
    the message was handed over: False without systemd, and on failure, which is logged and never raised, for
    a service must not end because its manager is busy. Blocks at most `SEND_TIMEOUT_S`.
    """

    def __init__(self, address: str | None) -> None:
        # "vsock:" addresses (systemd 254, virtual machines) are spoken to by nobody on a plain server.
        usable = address is not None and address[:1] in ("/", "@") and len(address) > 1
        self._address = address if usable else None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Notifier":
        """Read NOTIFY_SOCKET; it stays in place, for the agent's next image (re-exec) needs it too."""
        return cls(environ.get("NOTIFY_SOCKET"))

    def __repr__(self) -> str:
        return f"Notifier({self._address!r})"

    @property
    def active(self) -> bool:
        """Tell whether a service manager listens."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Say that start-up, or a reload, is complete."""
        return self._send(_lines("READY=1", status and f"STATUS={_one_line(status)}"))

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send(_lines(f"STATUS={_one_line(text)}"))

    def reloading(self) -> bool:
        """Say that a reload begins; `ready` ends it. MONOTONIC_USEC is what Type=notify-reload asks for."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send(_lines("RELOADING=1", f"MONOTONIC_USEC={usec}"))

    def stopping(self, status: str = "") -> bool:
        """Say that the shutdown has begun."""
        return self._send(_lines("STOPPING=1", status and f"STATUS={_one_line(status)}"))

    def watchdog(self) -> bool:
        """Report to be alive."""
        return self._send(b"WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for that much more time from now to start, reload or stop."""
        return self._send(_lines(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"))

    def main_pid(self, pid: int) -> bool:
        """Say which process is the service's main one."""
        return self._send(_lines(f"MAINPID={pid}"))

    def store(self, name: str, descriptors: Sequence[int]) -> bool:
        """Hand copies of `descriptors` to systemd, which gives them back under `name` to the next start.

        FDPOLL=0 keeps those whose other end is gone: a script that ends while the agent is down has its last
        output and its exit status behind exactly such a descriptor. Several under one name come back in
        reverse order. Raises ValueError for a name that systemd would reject.
        """
        head = _lines("FDSTORE=1", f"FDNAME={_checked_name(name)}", "FDPOLL=0")
        return all(
            self._send(head, descriptors[start : start + MAX_DESCRIPTORS_PER_MESSAGE])
            for start in range(0, len(descriptors), MAX_DESCRIPTORS_PER_MESSAGE)
        )

    def remove(self, name: str) -> bool:
        """Make systemd close every stored descriptor called `name`. Raises ValueError like `store`."""
        return self._send(_lines("FDSTOREREMOVE=1", f"FDNAME={_checked_name(name)}"))

    def barrier(self, timeout_s: float = BARRIER_TIMEOUT_S) -> bool:
        """Block until systemd has worked off everything sent before (BARRIER=1, systemd 246 and newer).

        Needed before an exit that follows `store`: messages of a process that is gone may be dropped.
        """
        if self._address is None:
            return False
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                sent = self._send(b"BARRIER=1", [writing])
            finally:
                os.close(writing)
            if not sent:
                return False
            waiting = select.poll()
            # Nothing is ever written: this reports the hang-up, once systemd has closed its copy.
            waiting.register(reading, select.POLLIN)
            return bool(waiting.poll(timeout_s * 1000))
        finally:
            os.close(reading)

    def _send(self, message: bytes, descriptors: Sequence[int] = ()) -> bool:
        if self._address is None:
            return False
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_TIMEOUT_S)
                sock.connect(address)
                sock.sendmsg([message], rights)
        except OSError as error:
            log.warning("cannot notify systemd at %s: %s; going on without", self._address, error)
            return False
        return True


def watchdog_period_s(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Return how often to call `watchdog`: half of WatchdogSec as sd_watchdog_enabled(3) says, else None."""
    owner = environ.get("WATCHDOG_PID")
    if owner is not None and owner != str(os.getpid() if pid is None else pid):
        return None
    try:
        usec = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return usec / 2e6 if usec > 0 else None


def listen_fds(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> list[tuple[str, int]]:
    """Return the inherited descriptors as (name, descriptor) in systemd's order, made close-on-exec.

    Names may repeat; a descriptor without one is called "unknown". Empty when LISTEN_PID means another
    process. The environment is left alone: the next image of this process (re-exec, same pid) reads it again.
    """
    if environ.get("LISTEN_PID") != str(os.getpid() if pid is None else pid):
        return []
    try:
        count = int(environ.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(count):
        descriptor = LISTEN_FDS_START + index
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            continue  # closed by a former image of this process
        name = names[index] if index < len(names) else ""
        found.append((name or "unknown", descriptor))
    return found


def is_journal(descriptor: int = 2, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether `descriptor` leads straight into the journal (JOURNAL_STREAM), which reads prefixes."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(descriptor)
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


def journal_prefix(levelno: int) -> str:
    """Return the journal's priority prefix ("<3>" for an error) of a `logging` level."""
    for threshold, prefix in _PRIORITIES:
        if levelno >= threshold:
            return prefix
    return _DEBUG_PRIORITY


class JournalFormatter(logging.Formatter):
    """Formats records for the journal: every line carries its priority, none carries a time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, each of its lines (a traceback has many) with the prefix."""
        prefix = journal_prefix(record.levelno)
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


def _lines(*fields: str) -> bytes:
    return "\n".join(filter(None, fields)).encode("utf-8", "replace")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _checked_name(name: str) -> str:
    # sd_pid_notify_with_fds(3): ASCII without control characters and colons, at most 255 of them.
    fits = 0 < len(name) <= MAX_NAME_BYTES
    if not fits or not name.isascii() or not name.isprintable() or ":" in name:
        raise ValueError(f"cannot store descriptors as {name!r}: at most 255 ASCII characters, no colon")
    return name
