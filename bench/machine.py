"""Owns readings of the machine: CPU, memory and wake-ups of processes, and commands timed from outside.

Knows nothing of what is measured.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def is_alive(pid: int) -> bool:
    """Tell whether this process runs (a zombie does not)."""
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def process_tree(root: int) -> list[int]:
    """Return the live pids of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))) is not None and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [root] if is_alive(root) else []
    for pid in found:
        found += children.get(pid, [])
    return found


def command_of(pid: int) -> str:
    """Return a process's command line, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU seconds that these processes have used so far, to the nanosecond where the kernel can."""
    total = 0.0
    for pid in pids:
        nanoseconds = 0
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError):
                nanoseconds += int(path.read_text(encoding="ascii").split()[0])
        fields = _stat(pid)
        ticks = (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0
        total += max(nanoseconds / 1e9, ticks)
    return total


def switches(pids: Sequence[int]) -> int:
    """Return how often these processes' threads were scheduled away, each followed by a wake-up."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="ascii", errors="replace").splitlines()
                total += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return total


def memory_mb(pids: Sequence[int], field: str = "VmRSS") -> float:
    """Return the sum of one field (VmRSS, VmHWM) of /proc/PID/status, in MiB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
    return total / 1024


def busy_seconds() -> float:
    """Return the CPU seconds that the whole machine has not idled."""
    values = [int(v) for v in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(values) - values[3] - values[4]) / TICKS


def run_ms(argv: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[float, int]:
    """Run a command, output to /dev/null; return its whole life in ms and its exit code."""
    program = argv[0] if "/" in argv[0] else (shutil.which(argv[0]) or argv[0])
    null = os.open("/dev/null", os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
        started = time.perf_counter()
        pid = os.posix_spawn(program, list(argv), {**os.environ, **(env or {})}, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        return (time.perf_counter() - started) * 1e3, os.waitstatus_to_exitcode(status)
    finally:
        os.close(null)


def until(deadline_s: float, step_s: float = 0.02) -> Iterator[None]:
    """Yield every `step_s` until the deadline (seconds from now) has passed."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        yield
        time.sleep(step_s)
