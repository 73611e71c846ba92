"""Owns how a run ended: what the kernel tells of a process, and what people, alerts and the next agent are told.

Pure: knows nothing of processes that still run, nor of what follows an end.
"""

import signal
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

Cause: TypeAlias = Literal["exit", "signal", "memory-limit", "oom-kill", "spawn", "unknown"]


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended: a status code or a signal's number; neither when the kernel cannot tell."""

    code: int | None = None
    signal: int | None = None
    core_dumped: bool = False

    @property
    def is_known(self) -> bool:
        """Tell an end that the kernel told of from one it did not."""
        return self.code is not None or self.signal is not None

    @property
    def shell_signal(self) -> int | None:
        """Return the signal that a shell means by this status, None when it means none (POSIX: above 128)."""
        number = 0 if self.code is None else self.code - 128
        return number if 0 < number < signal.NSIG else None

    @property
    def looks_killed(self) -> bool:
        """Tell an end by SIGKILL, of the process or, as shells report it, of its last command."""
        return self.signal == signal.SIGKILL or self.code == 128 + signal.SIGKILL

    @property
    def signal_name(self) -> str | None:
        """Return SIGKILL for 9."""
        if self.signal is None:
            return None
        try:
            return signal.Signals(self.signal).name
        except ValueError:
            return f"SIG{self.signal}"

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {self.signal_name}" + (" (core dumped)" if self.core_dumped else "")
        return "ended with unknown status" if self.code is None else f"exited with {self.code}"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a script's last run, or why there was none. `at` is RFC 3339; `ran_ms` None: it never ran."""

    text: str
    cause: Cause
    at: str
    code: int | None = None
    signal: str | None = None
    core_dumped: bool = False
    ran_ms: int | None = None

    @property
    def is_clean(self) -> bool:
        """Tell an end by exit status 0 from everything else."""
        return self.cause == "exit" and self.code == 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as rows and the record show it."""
        shown = {"text": self.text, "code": self.code, "signal": self.signal, "at": self.at}
        return shown if self.ran_ms is None else {**shown, "ranMs": self.ran_ms}


def judge_exit(found: Exit, *, by_shell: bool, over_memory: bool, oom_killed: bool, ran_ms: int, at: str) -> Ending:
    """Return the end of a run: `over_memory` when we ended it for its limit, `oom_killed` when the kernel did.

    `by_shell` says that the process is a shell: the application behind it ended by the signal that the shell tells.
    """
    text = str(found)
    if by_shell and found.shell_signal is not None:
        found = Exit(signal=found.shell_signal)
        text = f"{found} behind its shell"
    cause: Cause = "signal" if found.signal is not None else "exit" if found.is_known else "unknown"
    if over_memory:
        text, cause = "went over its memory limit", "memory-limit"
    elif oom_killed:
        text, cause = f"{text} (out of memory)", "oom-kill"
    return Ending(
        text=text,
        cause=cause,
        at=at,
        code=found.code,
        signal=found.signal_name,
        core_dumped=found.core_dumped,
        ran_ms=ran_ms,
    )


def judge_failed_start(reason: str, at: str) -> Ending:
    """Return why there was no run."""
    return Ending(text=reason, cause="spawn", at=at)


def read_ending(noted: Mapping[str, Any] | None) -> Ending | None:
    """Return what an earlier agent noted by `to_dict`; what is missing or odd in it (another version's) is left out."""
    if noted is None:
        return None
    words = {key: value for key in ("text", "signal", "at") if isinstance(value := noted.get(key), str)}
    numbers = {
        name: value for key, name in (("code", "code"), ("ranMs", "ran_ms")) if isinstance(value := noted.get(key), int)
    }
    cause: Cause = "signal" if "signal" in words else "exit" if "code" in numbers else "unknown"
    return msgspec.convert({"text": "", "at": "", "cause": cause, **words, **numbers}, Ending)
