"""Owns the figures of the soak: what the measures note is printed as one table when the run has ended.

Knows nothing of how they came about.
"""

from typing import Any

from tests.faults.harness import Outcome

COLUMNS = (
    ("rounds", "rounds"),
    ("agent killed", "agent_kills"),
    ("backend killed", "backend_kills"),
    ("written", "written"),
    ("received", "received"),
    ("lost", "lost"),
    ("duplicates", "twice"),
    ("disordered", "late"),
    ("drops reported", "reported"),
    ("unexplained", "unexplained"),
)
_NOTED: list[tuple[str, Outcome, tuple[str, ...]]] = []
_SAID: list[str] = []


def note(what: str, outcome: Outcome, *more: str) -> None:
    """Keep the figures of one measure, with whatever else there is to say, for the end."""
    _NOTED.append((what, outcome, more))


def say(line: str) -> None:
    """Keep a figure that fits no column, for the end."""
    _SAID.append(line)


def render(noted: list[tuple[str, Outcome, tuple[str, ...]]]) -> list[str]:
    """Return the table's lines. Duplicates and order are judged after de-duplication by (instance, seq)."""
    rows = [[what, *(f"{getattr(outcome, field):,}" for _, field in COLUMNS)] for what, outcome, _ in noted]
    heads = ["", *(name for name, _ in COLUMNS)]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [_line(heads, widths)]
    for (_, outcome, more), row in zip(noted, rows, strict=True):
        resent = (f"{outcome.resent:,} resent",) if outcome.resent else ()
        lines += [_line(row, widths), *(f"    {said}" for said in (*resent, *more))]
    return lines


def _line(cells: list[str], widths: list[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([cells[0].ljust(len(first)), *rest])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    lines = [*(render(_NOTED) if _NOTED else ()), *_SAID]
    if lines:
        terminalreporter.section("delivery")
    for line in lines:
        terminalreporter.write_line(line)
