"""Owns what a finding of the doctor is, and how findings are read: by people as lines, by scripts as a verdict.

Must not know what is looked at.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from orionagent.text import escape_lines, style

Level = Literal["ok", "note", "warning", "problem"]
STYLES: dict[Level, str] = {"ok": "32", "note": "2", "warning": "33", "problem": "31"}


class Finding(NamedTuple):
    """One thing that was looked at. `remedy` is empty where nothing needs to be done."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def problem(subject: str, message: str, otherwise: str) -> Finding:
    """Return what an error's message says: "cannot X: reason; do Y" has its remedy, else it is `otherwise`."""
    text, parted, remedy = message.rpartition("; ")
    if not parted:
        return Finding("problem", subject, message, otherwise)
    return Finding("problem", subject, text, remedy.removeprefix("run: "))


def not_for_this_user(subject: str, path: str) -> Finding:
    """Return that something could not be looked at."""
    return Finding("note", subject, f"{path} is not for this user", "sudo orion doctor")


def is_sick(findings: Sequence[Finding]) -> bool:
    """Tell whether any of them needs to be mended."""
    return any(finding.level == "problem" for finding in findings)


def render_findings(findings: Sequence[Finding], *, color: bool) -> str:
    """Return the findings as lines, each remedy below its finding."""
    lines = []
    for level, subject, text, remedy in findings:
        mark = style(f"{level:<8}", STYLES[level], color)
        lines.append(f"{mark} {subject:<8} {escape_lines(text, ' ' * 18)}\n")
        if remedy:
            lines.append(f"{'':<18}-> {escape_lines(remedy, ' ' * 21)}\n")
    return "".join(lines) + verdict(findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Return the last line: how many need to be mended, as far as this user could look."""
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        return f"{problems} to mend\n"
    hidden = any(finding.level == "note" for finding in findings)
    return f"nothing to mend{', as far as this user can look' if hidden else ''}\n"
